//! A small writer of SVG: elements, text, and a style that follows the reader's light or dark mode. What is drawn is decided in
//! [`crate::charts`].

use std::fmt::Write;

/// Colours by class, for light and for dark. Series have shapes of their own as well, so that colour is never all that tells them apart.
const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.soft{fill:#59636e}.end{text-anchor:end}.middle{text-anchor:middle}
.page{fill:#fff}.grid{stroke:#d1d9e0;stroke-width:1}.axis{stroke:#59636e;stroke-width:1}
.s0{fill:#0969da;stroke:#0969da}.s1{fill:#bc4c00;stroke:#bc4c00}.s2{fill:#6e7781;stroke:#6e7781}.s3{fill:#8250df;stroke:#8250df}
.required{stroke:#cf222e;stroke-width:2}.aim{stroke:#1a7f37;stroke-width:2;stroke-dasharray:3 2}
.line{fill:none;stroke-width:2}.bar{stroke:none}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.soft{fill:#9198a1}.page{fill:#0d1117}.grid{stroke:#3d444d}.axis{stroke:#9198a1}
.s0{fill:#4493f8;stroke:#4493f8}.s1{fill:#f0883e;stroke:#f0883e}.s2{fill:#9198a1;stroke:#9198a1}.s3{fill:#ab7df8;stroke:#ab7df8}
.required{stroke:#f85149}.aim{stroke:#3fb950}.line{fill:none}.bar{stroke:none}}";

/// A drawing.
#[derive(Clone, Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Svg {
    /// An empty one. The title is for those who cannot see it, too.
    pub fn new(width: f64, height: f64, title: &str) -> Svg {
        let mut svg = Svg {
            width,
            height,
            title: title.to_owned(),
            body: String::new(),
        };
        svg.text(16.0, 26.0, "title", title);
        svg
    }

    /// Text with its base line at `y`.
    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escape(text);
        self.element(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#
        ));
    }

    /// A line from one point to another.
    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.element(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// A rectangle by its upper left corner.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        assert!(width >= 0.0 && height >= 0.0, "a rectangle of {width} x {height}");
        self.element(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    /// A line through points.
    pub fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        self.element(format_args!(r#"<polyline class="{class}" points="{points}"/>"#));
    }

    /// The mark of a series: a circle, a square, a triangle, a diamond.
    pub fn mark(&mut self, series: usize, (x, y): (f64, f64)) {
        let class = format!("s{series}");
        let polygon = |points: &[(f64, f64)]| {
            let points: Vec<String> = points
                .iter()
                .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy))
                .collect();
            format!(r#"<polygon class="{class}" points="{}"/>"#, points.join(" "))
        };
        let mark = match series {
            0 => format!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#),
            1 => polygon(&[(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)]),
            2 => polygon(&[(-4.5, 4.0), (4.5, 4.0), (0.0, -4.5)]),
            _ => polygon(&[(-4.5, 0.0), (0.0, -4.5), (4.5, 0.0), (0.0, 4.5)]),
        };
        self.element(format_args!("{mark}"));
    }

    /// The file's text.
    pub fn finish(&self) -> String {
        let (width, height, title) = (self.width, self.height, escape(&self.title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a string takes everything");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Where values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

impl Scale {
    /// Values `from`..`to` lie at `start`..`end`.
    pub fn linear([from, to]: [f64; 2], [start, end]: [f64; 2]) -> Scale {
        assert!(from < to, "an empty axis from {from} to {to}");
        Scale {
            from,
            to,
            start,
            end,
            logarithmic: false,
        }
    }

    /// The same, each factor of ten as wide as the others.
    pub fn logarithmic([from, to]: [f64; 2], [start, end]: [f64; 2]) -> Scale {
        assert!(0.0 < from && from < to, "no logarithmic axis from {from} to {to}");
        Scale {
            from,
            to,
            start,
            end,
            logarithmic: true,
        }
    }

    /// Where a value lies. Outside of the axis at its end.
    pub fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        let share = if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.start + share * (self.end - self.start)
    }

    /// Round values along the axis.
    pub fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let exponents = self.from.log10().floor() as i32..=self.to.log10().ceil() as i32;
            let all: Vec<f64> = exponents
                .flat_map(|exponent| [1.0, 2.0, 5.0].map(|first| first * 10_f64.powi(exponent)))
                .filter(|tick| (self.from * 0.999..=self.to * 1.001).contains(tick))
                .collect();
            let few = all
                .iter()
                .copied()
                .filter(|tick| tick.log10().fract().abs() < 1e-9);
            return if all.len() > 7 { few.collect() } else { all };
        }
        let rough = (self.to - self.from) / 5.0;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|first| first * unit)
            .into_iter()
            .find(|step| *step >= rough);
        let step = step.expect("ten units are more than a rough step");
        let first = (self.from / step).ceil();
        (0..)
            .map(|k| (first + f64::from(k)) * step)
            .take_while(|tick| *tick <= self.to * 1.0001)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut svg = Svg::new(10.0, 20.0, "a < b & \"c\"");
        svg.text(1.0, 2.0, "soft", "≤ <1>");
        let text = svg.finish();
        assert!(text.starts_with("<svg "), "{text}");
        assert!(
            text.contains("aria-label=\"a &lt; b &amp; &quot;c&quot;\""),
            "{text}"
        );
        assert!(
            text.contains(r#"<text class="soft" x="1.0" y="2.0">≤ &lt;1&gt;</text>"#),
            "{text}"
        );
        assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
    }

    #[test]
    fn scales() {
        let scale = Scale::linear([0.0, 10.0], [100.0, 200.0]);
        assert_eq!(
            (scale.at(0.0), scale.at(5.0), scale.at(99.0)),
            (100.0, 150.0, 200.0)
        );
        assert_eq!(scale.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let scale = Scale::logarithmic([1.0, 100.0], [200.0, 0.0]);
        assert_eq!(
            (scale.at(1.0), scale.at(10.0), scale.at(100.0)),
            (200.0, 100.0, 0.0)
        );
        assert_eq!(scale.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(
            Scale::logarithmic([1.0, 10_000.0], [0.0, 1.0]).ticks(),
            [1.0, 10.0, 100.0, 1000.0, 10_000.0]
        );
    }

    #[test]
    #[should_panic(expected = "an empty axis")]
    fn an_axis_has_a_length() {
        Scale::linear([1.0, 1.0], [0.0, 1.0]);
    }
}
