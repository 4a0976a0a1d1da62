//! What the demo shows: at first what to try, then the nodes. On a terminal the nodes' table is drawn again in place; else a
//! line is printed when something has changed.

use std::io::{self, IsTerminal};
use std::time::Duration;

use quorate_proto::etcdserverpb::StatusResponse;
use tokio::time::Instant;

use super::node::{Node, Plan};
use crate::args::DemoArgs;
use crate::client::members::role;
use crate::output;

/// A moving commit index alone is no news more often than this.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The state of what is shown.
pub struct View {
    terminal: bool,
    styled: bool,
    restart_after: u64,
    drawn_lines: usize,
    last_line: Option<(String, String, Instant)>,
}

impl View {
    /// Prints the introduction.
    pub fn new(args: &DemoArgs, plans: &[Plan]) -> View {
        output::print(introduction(args, plans).as_bytes());
        View {
            terminal: io::stdout().is_terminal(),
            styled: output::styled(),
            restart_after: args.restart_after,
            drawn_lines: 0,
            last_line: None,
        }
    }

    /// Shows the nodes.
    pub fn show(&mut self, nodes: &[Node], now: Instant) {
        if self.terminal {
            self.draw(nodes)
        } else {
            self.tell(nodes, now)
        }
    }

    /// Says that the end has begun.
    pub fn ending(&mut self) {
        output::print(b"\nEnding the nodes: each hands over, flushes and exits.\n");
    }

    /// Says that nothing is left running.
    pub fn ended(&mut self) {
        output::print(b"All nodes have ended. Their data is kept; the next demo goes on with it.\n");
    }

    fn draw(&mut self, nodes: &[Node]) {
        let headings = ["NODE", "PID", "CLIENTS", "ROLE", "TERM", "COMMIT", "APPLIED"];
        let rows: Vec<Vec<String>> = nodes.iter().map(|node| self.row(node)).collect();
        let mut text = output::table(&headings, &rows, self.styled);
        text += &match nodes.iter().find(|node| is_leader(node)) {
            Some(leader) => format!(
                "Try: kill -9 {}   (the leader, {}; it is started again after {} s)\n",
                leader.pid().unwrap_or_default(),
                leader.plan().name,
                self.restart_after
            ),
            None => "No leader at the moment.\n".to_owned(),
        };
        let width =
            rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| usize::from(size.ws_col.max(20)));
        let mut out = if self.drawn_lines > 0 {
            format!("\x1b[{}A", self.drawn_lines)
        } else {
            "\n".to_owned()
        };
        self.drawn_lines = 0;
        for line in text.lines() {
            // A line longer than the terminal is wide would take two, and the next drawing would begin too low.
            let shown: String = if line.starts_with('\x1b') {
                line.to_owned()
            } else {
                line.chars().take(width).collect()
            };
            out += &format!("\r\x1b[2K{shown}\n");
            self.drawn_lines += 1;
        }
        output::print(out.as_bytes());
    }

    fn row(&self, node: &Node) -> Vec<String> {
        let (role, numbers) = match (node.down_since(), node.status()) {
            (Some(_), _) if node.is_out() => ("no member any more".to_owned(), None),
            (Some(since), _) => {
                let left = self.restart_after.saturating_sub(since.elapsed().as_secs());
                (format!("down ({}), again in {left} s", node.how_it_ended()), None)
            }
            (None, None) => ("no answer".to_owned(), None),
            (None, Some(status)) => (role(status).to_owned(), Some(status)),
        };
        let number = |of: fn(&StatusResponse) -> u64| numbers.map_or("-".to_owned(), |s| of(s).to_string());
        vec![
            node.plan().name.clone(),
            node.pid().map_or("-".to_owned(), |pid| pid.to_string()),
            node.plan().client_url.clone(),
            role,
            number(|s| s.raft_term),
            number(|s| s.raft_index),
            number(|s| s.raft_applied_index),
        ]
    }

    /// Prints a line if roles or processes have changed, or the indexes have and the last line is a while ago.
    fn tell(&mut self, nodes: &[Node], now: Instant) {
        let mut roles = String::new();
        let mut whole = String::new();
        for node in nodes {
            let name = &node.plan().name;
            let pid = node.pid().unwrap_or_default();
            let (role, numbers) = match (node.down_since(), node.status()) {
                (Some(_), _) => (format!("down ({})", node.how_it_ended()), String::new()),
                (None, None) => (format!("pid {pid} no answer"), String::new()),
                (None, Some(s)) => (
                    format!("pid {pid} {} term {}", role(s), s.raft_term),
                    format!(" commit {} applied {}", s.raft_index, s.raft_applied_index),
                ),
            };
            roles += &format!("{name} {role}; ");
            whole += &format!("{name} {role}{numbers}; ");
        }
        let news = match &self.last_line {
            None => true,
            Some((last_roles, last_whole, at)) => {
                *last_roles != roles || (*last_whole != whole && now - *at >= LINE_EVERY)
            }
        };
        if news {
            output::print(format!("{}\n", whole.trim_end_matches("; ")).as_bytes());
            self.last_line = Some((roles, whole, now));
        }
    }
}

fn is_leader(node: &Node) -> bool {
    node.pid().is_some() && node.status().is_some_and(|status| role(status) == "leader")
}

fn introduction(args: &DemoArgs, plans: &[Plan]) -> String {
    let endpoints: Vec<&str> = plans
        .iter()
        .map(|plan| plan.client_url.trim_start_matches("http://"))
        .collect();
    let endpoints = endpoints.join(",");
    let program = std::env::current_exe().map_or("quorate".to_owned(), |path| path.display().to_string());
    format!(
        "A cluster of {} real server processes. Data and logs: {}\n\
         Endpoints: {endpoints}\n\n\
         Try in another terminal:\n  \
           {program} put greeting hello --endpoints {endpoints}\n  \
           {program} get greeting --endpoints {endpoints}\n  \
           {program} member replace n1 --name new --peer-urls http://127.0.0.1:{} --dry-run --endpoints {endpoints}\n  \
           etcdctl --endpoints {endpoints} get greeting\n  \
           curl -s {}/version\n  \
           kill -9 PID                (of any node: it is started again after {} s)\n\n\
         Ctrl-C ends it all.\n",
        args.nodes,
        args.data_dir.display(),
        // The peer port of one more node.
        args.base_port + 100 * args.nodes + 1,
        plans.first().map_or("", |plan| &plan.client_url),
        args.restart_after,
    )
}
