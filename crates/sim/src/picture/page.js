// Draws the part of the run that is in sight: time from left to right, a lane for each node, messages as arrows between them.

const ROLE = { follower: "#4f81bd", precandidate: "#d9a514", candidate: "#e07b1f", leader: "#2e9e55", paused: "#9a8fb8", down: "#c9ced6", dark: "#3a3f47" };
const CLASS = { Vote: "#d9720f", Append: "#2f6fb3", Heartbeat: "#a9b4c0", Read: "#1b998b", Forward: "#7b5ea7", Snapshot: "#b0307a" };
const TOPIC = { Failure: "#d6006c", Fault: "#c62828", Life: "#3a3f47", Leader: "#b8860b", Membership: "#7b5ea7", Snapshot: "#b0307a", Commit: "#2e9e55", Client: "#2f6fb3", Disk: "#8d99a6", Note: "#8d99a6" };
const MANY = 5000, LEFT = 64, TOP = 96, ABOVE = 22;
const $ = id => document.getElementById(id);

const messages = [], marks = [], states = new Map(), cuts = [{ at: 0, pairs: DATA.cuts }];
const seen = new Set();
const look = (at, node, [role, term, stalled]) => {
  if (!states.has(node)) states.set(node, []);
  states.get(node).push({ at, role, term, stalled });
  seen.add(node);
};
for (const [at, node, ...state] of DATA.states) look(at, node, state);
for (const [kind, at, ...rest] of DATA.items) {
  if (kind === "m") {
    const [from, to, cls, words, flat] = rest, ends = [];
    for (let i = 0; i < flat.length; i += 2) ends.push([flat[i], flat[i + 1]]);
    seen.add(from).add(to);
    messages.push({ at, from, to, cls, words, ends, last: Math.max(at, ...ends.map(e => e[0])) });
  } else if (kind === "k") {
    const [node, topic, words] = rest;
    if (node) seen.add(node);
    marks.push({ at, node, topic, words });
  } else if (kind === "s") {
    look(at, rest[0], rest.slice(1));
  } else {
    cuts.push({ at, pairs: rest[0] });
  }
}
const longest = messages.reduce((most, m) => Math.max(most, m.last - m.at), 0);
const nodes = [...seen].sort((a, b) => a - b);
const shown = { nodes: new Set(nodes), classes: new Set(Object.keys(CLASS)), topics: new Set(Object.keys(TOPIC)) };
for (const quiet of ["Disk", "Note"]) shown.topics.delete(quiet);
const begun = DATA.begun, ended = Math.max(DATA.ended, begun + 1);
const failure = marks.find(m => m.topic === "Failure");
const seconds = us => (us / 1e6).toFixed(6);

// What is in sight, in microseconds.
let view = { from: begun, to: ended };
const width = () => $("main").clientWidth - LEFT;
const x = at => LEFT + (at - view.from) / (view.to - view.from) * width();
const lanes = () => nodes.filter(n => shown.nodes.has(n));
const gap = () => Math.max(64, Math.min(220, (window.innerHeight - 330) / Math.max(1, lanes().length - 1)));
const y = node => TOP + ABOVE + lanes().indexOf(node) * gap();

function move(from, to) {
  const span = Math.min(Math.max(to - from, 20), ended - begun), middle = (from + to) / 2;
  let start = Math.max(begun, Math.min(middle - span / 2, ended + span * 0.04 - span));
  view = { from: start, to: start + span };
  history.replaceState(null, "", `#at=${seconds(start + span / 2)}&span=${seconds(span)}`);
  draw();
}
const zoom = (factor, at = (view.from + view.to) / 2) => move(at - (at - view.from) * factor, at + (view.to - at) * factor);
const center = (at, span = view.to - view.from) => move(at - span / 2, at + span / 2);
function jump(topics, forward) {
  const middle = (view.from + view.to) / 2, slack = (view.to - view.from) / 1000;
  const these = marks.filter(m => topics.includes(m.topic) && (forward ? m.at > middle + slack : m.at < middle - slack));
  const next = forward ? these[0] : these[these.length - 1];
  if (next) center(next.at);
}

function sized(canvas, height) {
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth;
  canvas.style.height = height + "px";
  canvas.width = w * ratio;
  canvas.height = height * ratio;
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio);
  g.clearRect(0, 0, w, height);
  g.font = "11px system-ui, sans-serif";
  return g;
}

// Who still reaches whom, in words: groups if every link is open both ways or cut both ways, else the cut links.
function described(pairs) {
  const cut = new Set(pairs.map(p => p.join(">"))), gone = (a, b) => cut.has(a + ">" + b);
  const touched = nodes.filter(n => n < 1000), group = new Map(touched.map(n => [n, n]));
  for (const a of touched) for (const b of touched) if (a !== b && !gone(a, b) && !gone(b, a)) {
    const [one, other] = [group.get(a), group.get(b)];
    for (const [n, g] of group) if (g === other) group.set(n, one);
  }
  const groups = [...new Set(group.values())].map(g => touched.filter(n => group.get(n) === g));
  const exact = touched.every(a => touched.every(b => a === b || (group.get(a) !== group.get(b)) === gone(a, b)));
  if (exact && groups.length > 1) return "cut: " + groups.map(g => g.map(n => "n" + n).join(" ")).join("  |  ");
  const both = pairs.filter(([a, b]) => a < b && gone(b, a)).map(([a, b]) => `n${a}\u2194n${b}`);
  return "cut: " + both.concat(pairs.filter(([a, b]) => !gone(b, a)).map(([a, b]) => `n${a}\u2192n${b}`)).join(" ");
}

let hot = []; // What the pointer can find: [x1, y1, x2, y2, words].
function draw() {
  const height = TOP + ABOVE + Math.max(1, lanes().length - 1) * gap() + 46, g = sized($("main"), height);
  hot = [];
  $("range").textContent = `${seconds(view.from)} s to ${seconds(Math.min(view.to, ended))} s`;
  axis(g, height);
  bands(g, height);
  lanes().forEach(node => lane(g, node));
  arrows(g);
  tell(g, height);
  overview();
}

function axis(g, height) {
  const span = view.to - view.from;
  let step = 10 ** Math.floor(Math.log10(span / 6));
  step *= span / step > 30 ? 5 : span / step > 12 ? 2 : 1;
  g.strokeStyle = "#e6ebf0";
  g.fillStyle = "#69788a";
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    g.beginPath(); g.moveTo(x(at), 18); g.lineTo(x(at), height); g.stroke();
    g.fillText((at / 1e6).toFixed(Math.max(0, 6 - Math.floor(Math.log10(step)))) + " s", x(at) + 3, 14);
  }
}

function bands(g, height) {
  cuts.forEach((cut, i) => {
    const until = i + 1 < cuts.length ? cuts[i + 1].at : ended;
    if (!cut.pairs.length || until < view.from || cut.at > view.to) return;
    const [a, b] = [Math.max(LEFT, x(cut.at)), Math.min(x(until), LEFT + width())];
    g.fillStyle = "rgba(198, 40, 40, .06)";
    g.fillRect(a, 24, b - a, height);
    g.fillStyle = "#c62828";
    g.fillRect(a, 24, b - a, 3);
    const words = described(cut.pairs);
    g.save(); g.beginPath(); g.rect(a, 24, b - a, 20); g.clip();
    g.fillText(words, a + 4, 40); g.restore();
    hot.push([a, 34, b, 34, words]);
  });
}

function lane(g, node) {
  const at = y(node), history = states.get(node) || [];
  g.fillStyle = "#1d2733";
  g.font = "600 13px system-ui, sans-serif";
  g.fillText(node >= 1000 ? "imp." + (node - 999) : "n" + node, 10, at + 4);
  g.font = "11px system-ui, sans-serif";
  history.forEach((state, i) => {
    const until = i + 1 < history.length ? history[i + 1].at : ended;
    if (until < view.from || state.at > view.to) return;
    const [a, b] = [Math.max(LEFT, x(state.at)), Math.min(x(until), LEFT + width())];
    const off = state.role === "down" || state.role === "dark";
    g.strokeStyle = ROLE[state.role];
    g.lineWidth = off ? 2 : state.role === "follower" ? 4 : 7;
    g.setLineDash(off ? [2, 5] : state.role === "paused" ? [6, 4] : []);
    g.beginPath(); g.moveTo(a, at); g.lineTo(b, at); g.stroke();
    if (state.stalled) { g.strokeStyle = "#c62828"; g.lineWidth = 1.5; g.setLineDash([2, 2]); g.beginPath(); g.moveTo(a, at + 7); g.lineTo(b, at + 7); g.stroke(); }
    g.setLineDash([]); g.lineWidth = 1;
    const before = history[i - 1], fresh = !before || before.term !== state.term || before.role !== state.role;
    if (fresh && b - a > 28) {
      g.fillStyle = ROLE[off ? "dark" : state.role];
      g.fillText(off ? state.role === "dark" ? "no power" : "down" : `t${state.term}${state.role === "follower" ? "" : " " + state.role}`, a + 3, at - 7);
    }
    hot.push([a, at, b, at, `n${node}: ${state.role}, term ${state.term}${state.stalled ? ", its disk does not return" : ""}\n${seconds(state.at)} s to ${seconds(until)} s`]);
  });
}

function cross(g, px, py, size = 4) {
  g.beginPath();
  g.moveTo(px - size, py - size); g.lineTo(px + size, py + size);
  g.moveTo(px - size, py + size); g.lineTo(px + size, py - size);
  g.stroke();
}

function arrows(g) {
  let low = 0, high = messages.length;
  while (low < high) { const mid = (low + high) >> 1; messages[mid].at < view.from - longest ? low = mid + 1 : high = mid; }
  const inSight = [];
  for (let i = low; i < messages.length && messages[i].at <= view.to; i++) {
    const m = messages[i];
    if (m.last >= view.from && shown.classes.has(m.cls) && shown.nodes.has(m.from) && shown.nodes.has(m.to)) inSight.push(m);
  }
  if (inSight.length > MANY) {
    g.fillStyle = "#c62828";
    g.fillText(`${inSight.length} messages in sight: zoom in to see them`, LEFT + 8, TOP - 4);
    return;
  }
  g.save(); g.beginPath(); g.rect(LEFT, TOP - 30, width(), 1e5); g.clip();
  for (const m of inSight) {
    const [ax, ay, by] = [x(m.at), y(m.from), y(m.to)];
    const words = `n${m.from} \u2192 n${m.to}  ${m.words}\nsent ${seconds(m.at)} s`;
    const ends = m.ends.length ? m.ends : [[m.at, 0, 1]];
    for (const [end, whole, open] of ends) {
      g.strokeStyle = g.fillStyle = CLASS[m.cls];
      g.lineWidth = m.cls === "Heartbeat" ? 0.8 : 1.3;
      g.globalAlpha = m.cls === "Heartbeat" ? 0.75 : 1;
      // One that was lost at once ends a third of the way over.
      const short = !whole && end === m.at, bx = short ? ax + 8 : x(end), ey = short ? ay + (by - ay) / 3 : by;
      g.setLineDash(whole ? [] : [4, 3]);
      g.beginPath(); g.moveTo(ax, ay); g.lineTo(bx, ey); g.stroke();
      g.setLineDash([]);
      if (whole) {
        const angle = Math.atan2(ey - ay, bx - ax);
        g.beginPath(); g.moveTo(bx, ey);
        g.lineTo(bx - 7 * Math.cos(angle - 0.35), ey - 7 * Math.sin(angle - 0.35));
        g.lineTo(bx - 7 * Math.cos(angle + 0.35), ey - 7 * Math.sin(angle + 0.35));
        g.fill();
      } else { g.strokeStyle = "#c62828"; g.lineWidth = 1.6; cross(g, bx, ey); }
      g.globalAlpha = 1;
      const fate = whole ? `arrived ${seconds(end)} s` : open ? "never arrived" : short ? "lost" : `lost at ${seconds(end)} s`;
      hot.push([ax, ay, bx, ey, `${words}, ${fate}`]);
    }
  }
  g.restore();
  g.lineWidth = 1;
}

// Marks: faults above all lanes, everything else at its node.
function tell(g, height) {
  g.save(); g.beginPath(); g.rect(LEFT, 0, width(), height); g.clip();
  let free = [-1e9, -1e9];
  for (const m of marks) {
    if (m.at < view.from || m.at > view.to || !shown.topics.has(m.topic) || (m.node && !shown.nodes.has(m.node))) continue;
    const px = x(m.at), py = m.node ? y(m.node) : TOP - 26;
    g.fillStyle = g.strokeStyle = TOPIC[m.topic];
    let hy = py;
    if (m.topic === "Failure") {
      g.lineWidth = 2; g.beginPath(); g.moveTo(px, 18); g.lineTo(px, height); g.stroke(); g.lineWidth = 1;
      g.font = "600 12px system-ui, sans-serif"; g.textAlign = px > LEFT + width() / 2 ? "right" : "left";
      g.fillText(m.words.slice(0, 150), px + (g.textAlign === "right" ? -6 : 6), height - 8);
      g.textAlign = "left"; g.font = "11px system-ui, sans-serif"; hy = height - 12;
    } else if (m.topic === "Commit") { g.fillRect(px - 0.75, py + 4, 1.5, 7); hy = py + 8; }
    else if (m.topic === "Client") { g.beginPath(); g.arc(px, py + 15, 2.6, 0, 7); g.fill(); hy = py + 15; }
    else if (m.topic === "Disk" || m.topic === "Note") { g.beginPath(); g.arc(px, py + 22, 2, 0, 7); g.fill(); hy = py + 22; }
    else if (m.topic === "Snapshot") { g.fillRect(px - 3, py + 12, 6, 6); hy = py + 15; }
    else if (m.topic === "Leader") { g.font = "16px system-ui"; g.fillText("\u2605", px - 7, py - 14); g.font = "11px system-ui, sans-serif"; hy = py - 19; }
    else if (m.topic === "Life") { g.lineWidth = 2; g.beginPath(); g.moveTo(px, py - 9); g.lineTo(px, py + 9); g.stroke(); g.lineWidth = 1; hy = py - 9; }
    else {
      g.beginPath(); g.moveTo(px - 5, py - 11); g.lineTo(px + 5, py - 11); g.lineTo(px, py - 3); g.fill(); hy = py - 8;
      const row = px > free[0] ? 0 : 1;
      if (!m.node && px > free[row]) {
        const words = m.words.slice(0, 70);
        g.fillText(words, px + 8, py - 4 + row * 13);
        free[row] = px + 16 + g.measureText(words).width;
      }
    }
    hot.push([px, hy, px, hy, `${m.node ? "n" + m.node + ": " : ""}${m.words}\n${m.topic.toLowerCase()}, ${seconds(m.at)} s`]);
  }
  g.restore();
}

function overview() {
  const g = sized($("overview"), 46), w = width(), ox = at => LEFT + (at - begun) / (ended - begun) * w;
  g.fillStyle = "#69788a"; g.fillText("all kept", 10, 27);
  for (const [i, cut] of cuts.entries()) if (cut.pairs.length) {
    g.fillStyle = "rgba(198, 40, 40, .15)";
    g.fillRect(ox(cut.at), 6, Math.max(1, ox(i + 1 < cuts.length ? cuts[i + 1].at : ended) - ox(cut.at)), 34);
  }
  for (const m of marks) if (["Fault", "Leader", "Life", "Failure"].includes(m.topic)) {
    g.fillStyle = TOPIC[m.topic];
    const [top, tall] = { Fault: [6, 10], Leader: [17, 10], Life: [28, 10], Failure: [2, 42] }[m.topic];
    g.fillRect(ox(m.at), top, m.topic === "Failure" ? 3 : 1.5, tall);
  }
  g.strokeStyle = "#1d2733"; g.fillStyle = "rgba(29, 39, 51, .08)";
  const a = ox(view.from), b = Math.max(a + 3, ox(Math.min(view.to, ended)));
  g.fillRect(a, 2, b - a, 42); g.strokeRect(a + .5, 2.5, b - a, 41);
}

function button(group, words, act, colour) {
  const b = document.createElement("button");
  if (colour) { const dot = document.createElement("span"); dot.className = "dot"; dot.style.background = colour; b.append(dot); }
  b.append(words);
  b.onclick = () => act(b);
  $(group).append(b);
  return b;
}
function toggles(group, name, set, all, colours, label = v => v.toLowerCase()) {
  $(group).insertAdjacentHTML("beforeend", `<b>${name}</b>`);
  for (const value of all) {
    const b = button(group, label(value), () => {
      set.delete(value) || set.add(value);
      b.classList.toggle("off", !set.has(value));
      draw();
    }, colours && colours[value]);
    b.classList.toggle("off", !set.has(value));
  }
}

function distance(px, py, [ax, ay, bx, by]) {
  const [dx, dy] = [bx - ax, by - ay], long = dx * dx + dy * dy;
  const along = long ? Math.max(0, Math.min(1, ((px - ax) * dx + (py - ay) * dy) / long)) : 0;
  return Math.hypot(px - ax - along * dx, py - ay - along * dy);
}
function hover(event) {
  const box = $("main").getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
  let best = null, least = 7;
  // Points before lines: they are drawn on top, and harder to meet.
  for (let i = hot.length - 1; i >= 0; i--) {
    const h = hot[i], d = distance(px, py, h) + (h[0] === h[2] && h[1] === h[3] ? 0 : 2);
    if (d < least) [best, least] = [h, d];
  }
  const tip = $("tip");
  tip.hidden = !best;
  if (best) {
    tip.textContent = best[4];
    tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8) + "px";
  }
}

function begin() {
  $("title").textContent = document.title;
  if (failure) button("jumps", "to the failure", () => center(failure.at), TOPIC.Failure);
  for (const [words, topics] of [["election", ["Leader"]], ["fault", ["Fault"]], ["start or end", ["Life"]]]) {
    button("jumps", "\u2039", () => jump(topics, false)); button("jumps", words + " \u203a", () => jump(topics, true));
  }
  button("zooms", "\u2212", () => zoom(2)); button("zooms", "+", () => zoom(0.5)); button("zooms", "all", () => move(begun, ended));
  toggles("classes", "messages", shown.classes, Object.keys(CLASS), CLASS);
  toggles("topics", "events", shown.topics, Object.keys(TOPIC), TOPIC);
  toggles("nodes", "nodes", shown.nodes, nodes, null, n => n >= 1000 ? "imp." + (n - 999) : "n" + n);
  $("legend").innerHTML = Object.entries(ROLE).map(([role, c]) => `<span class="swatch" style="background:${c}"></span>${role}`).join("") +
    " &nbsp; dotted red below a lane: its disk does not return &nbsp; red crosses: lost messages &nbsp; \u2605 a new leader &nbsp; wheel: zoom, drag: move, arrow keys: move, + and \u2212: zoom";
  const main = $("main");
  main.addEventListener("wheel", e => {
    e.preventDefault();
    const at = view.from + (e.offsetX - LEFT) / width() * (view.to - view.from);
    zoom(e.deltaY > 0 ? 1.25 : 0.8, at);
  }, { passive: false });
  let held = null;
  main.onpointerdown = e => { held = { px: e.clientX, ...view }; main.setPointerCapture(e.pointerId); };
  main.onpointermove = e => {
    if (!held) return hover(e);
    const by = (held.px - e.clientX) / width() * (held.to - held.from);
    move(held.from + by, held.to + by);
  };
  main.onpointerup = () => held = null;
  main.onpointerleave = () => $("tip").hidden = true;
  let over = false;
  const pick = e => center(begun + (e.offsetX - LEFT) / width() * (ended - begun));
  $("overview").onpointerdown = e => { over = true; pick(e); };
  $("overview").onpointermove = e => over && pick(e);
  window.addEventListener("pointerup", () => over = false);
  window.addEventListener("keydown", e => {
    const span = view.to - view.from, by = { ArrowLeft: -span / 4, ArrowRight: span / 4 }[e.key];
    if (by) move(view.from + by, view.to + by);
    else if (e.key === "+" || e.key === "=") zoom(0.5);
    else if (e.key === "-") zoom(2);
  });
  window.addEventListener("resize", draw);
  const wanted = new URLSearchParams(location.hash.slice(1));
  const last = marks.filter(m => m.topic === "Leader").pop();
  const at = wanted.has("at") ? wanted.get("at") * 1e6 : failure ? failure.at : last ? last.at : ended;
  // At first as much as a person can take in, and what led to it rather than what came after.
  const before = messages.filter(m => m.at <= at).slice(-150)[0];
  const usual = Math.min(ended - begun, Math.max(400e3, before ? at - before.at : 0));
  const span = wanted.has("span") ? wanted.get("span") * 1e6 : usual;
  center(wanted.has("at") ? at : at - span * 0.4, span);
}
begin();
