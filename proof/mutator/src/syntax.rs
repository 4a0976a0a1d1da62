//! Where in a file the constructs lie that are mutated, and what its functions say.

use std::collections::BTreeMap;
use std::ops::Range;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A match arm.
#[derive(Clone, Debug)]
pub struct Arm {
    pub pattern_end: usize,
    pub guard: Option<Range<usize>>,
    /// The guard binds something, so it cannot become part of another condition.
    pub guard_binds: bool,
}

/// The constructs of one file, by the offset at which they begin.
#[derive(Default)]
pub struct Syntax {
    /// By the operator: the expression that can be replaced as a whole, if there is one.
    pub binaries: BTreeMap<usize, Option<Range<usize>>>,
    /// By the operator: the expression with it.
    pub unaries: BTreeMap<usize, Range<usize>>,
    /// By the arm, and by its guard.
    pub arms: BTreeMap<usize, Arm>,
    /// By the field: the struct expression.
    pub fields: BTreeMap<usize, Range<usize>>,
    functions: Vec<(Range<usize>, u64)>,
    /// The outermost expression of the operators around the one being visited, up to parentheses, and whether it binds.
    chain: Option<(Range<usize>, bool)>,
}

impl Syntax {
    pub fn of(text: &str) -> syn::Result<Syntax> {
        let file = syn::parse_file(text)?;
        let mut syntax = Syntax {
            functions: vec![(0..usize::MAX, fingerprint(file.to_token_stream()))],
            ..Syntax::default()
        };
        syntax.visit_file(&file);
        Ok(syntax)
    }

    /// The fingerprint of the innermost function around `at`; of the whole file if there is none. It changes with every token but those of
    /// coverage marks, and with no comment or white space.
    pub fn fingerprint(&self, at: usize) -> u64 {
        let around = self.functions.iter().filter(|(range, _)| range.contains(&at));
        around
            .min_by_key(|(range, _)| range.end - range.start)
            .map_or(0, |(_, hash)| *hash)
    }

    fn function(&mut self, item: &(impl ToTokens + Spanned)) {
        let range = item.span().byte_range();
        self.functions.push((range, fingerprint(item.to_token_stream())));
    }

    fn visit_apart(&mut self, visit: impl FnOnce(&mut Self)) {
        let chain = self.chain.take();
        visit(self);
        self.chain = chain;
    }
}

impl<'ast> Visit<'ast> for Syntax {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(item);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(item);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(item);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr(&mut self, expr: &'ast syn::Expr) {
        let syn::Expr::Binary(binary) = expr else {
            return self.visit_apart(|this| visit::visit_expr(this, expr));
        };
        // Changing an operator may change what binds to what in the whole chain, so the chain is replaced as it would then be read.
        let (range, binds) = self
            .chain
            .get_or_insert_with(|| (expr.span().byte_range(), binds(expr)))
            .clone();
        let lazy = matches!(binary.op, syn::BinOp::And(_) | syn::BinOp::Or(_));
        let (region, inner) = match (binds, lazy) {
            (false, _) => (Some(range.clone()), (range, false)),
            // `let … = … && a == b`: the comparison is an expression of its own.
            (true, false) => {
                let own = expr.span().byte_range();
                (Some(own.clone()), (own, false))
            }
            (true, true) => (None, (range, true)),
        };
        self.binaries.insert(binary.op.span().byte_range().start, region);
        for side in [&binary.left, &binary.right] {
            self.chain = Some(inner.clone());
            self.visit_expr(side);
        }
        self.chain = None;
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        self.unaries
            .insert(unary.op.span().byte_range().start, unary.span().byte_range());
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let guard = arm.guard.as_ref().map(|(_, guard)| guard);
        let site = Arm {
            pattern_end: arm.pat.span().byte_range().end,
            guard: guard.map(|guard| guard.span().byte_range()),
            guard_binds: guard.is_some_and(|guard| binds(guard)),
        };
        if let Some(range) = &site.guard {
            self.arms.insert(range.start, site.clone());
        }
        self.arms.insert(arm.span().byte_range().start, site);
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expr: &'ast syn::ExprStruct) {
        for field in &expr.fields {
            let at = field.span().byte_range().start;
            self.fields.insert(at, expr.span().byte_range());
        }
        visit::visit_expr_struct(self, expr);
    }
}

/// Whether a condition has a `let` among its terms.
fn binds(expr: &syn::Expr) -> bool {
    match expr {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

/// FNV-1a, 64 bits, over the tokens.
fn fingerprint(tokens: TokenStream) -> u64 {
    let mut words = Vec::new();
    flatten(tokens, &mut words);
    let bytes = words.iter().flat_map(|word| word.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The tokens without documentation and without coverage marks, `reached!(…);`.
fn flatten(tokens: TokenStream, words: &mut Vec<String>) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, word: &str| trees.get(at).is_some_and(|tree| tree.to_string() == word);
    let mut at = 0;
    while at < trees.len() {
        match &trees[at] {
            TokenTree::Ident(name) if name == "reached" && is(at + 1, "!") => {
                at += if is(at + 3, ";") { 4 } else { 3 };
                continue;
            }
            TokenTree::Punct(sign) if sign.as_char() == '#' && is_doc(trees.get(at + 1)) => {
                at += 2;
                continue;
            }
            TokenTree::Group(group) => {
                words.push(format!("{:?}", group.delimiter()));
                flatten(group.stream(), words);
                words.push(".".to_owned());
            }
            other => words.push(other.to_string()),
        }
        at += 1;
    }
}

fn is_doc(tree: Option<&TokenTree>) -> bool {
    match tree {
        Some(TokenTree::Group(group)) => {
            let first = group.stream().into_iter().next();
            first.is_some_and(|first| first.to_string() == "doc")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> u64 {
        Syntax::of(text).unwrap().fingerprint(text.find("fn").unwrap())
    }

    #[test]
    fn a_fingerprint_ignores_comments_space_and_marks_and_nothing_else() {
        let plain = of("fn f(a: u8) -> u8 { a + 1 }");
        assert_eq!(
            plain,
            of("/// Adds.\nfn f(a: u8) -> u8 {\n    // One.\n    reached!(\"f\");\n    a + 1\n}")
        );
        assert_ne!(plain, of("fn f(a: u8) -> u8 { a + 2 }"));
        assert_ne!(plain, of("fn f(a: u8) -> u8 { (a + 1) }"));
        assert_ne!(plain, of("fn f(a: u8) -> u8 { note!(1); a + 1 }"));
    }

    #[test]
    fn a_fingerprint_is_that_of_the_innermost_function() {
        let one = "fn f() {}\nfn g() { 1; }";
        let two = "fn f() {}\nfn g() { 2; }";
        let (one, two) = (Syntax::of(one).unwrap(), Syntax::of(two).unwrap());
        assert_eq!(one.fingerprint(4), two.fingerprint(4));
        assert_ne!(one.fingerprint(15), two.fingerprint(15));
    }
}
