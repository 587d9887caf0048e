-- The page that shows the status of all pools in a browser. It is the same for
-- everyone, loads nothing but JSON from its own address, and puts what it gets
-- there into the page as text only.

-- Of what stands inside the page's style and script, so that a browser runs
-- these and nothing else. The spec computes them again.
local STYLE = "sha256-gqKYqCq9I4jBWp+3xO98H+aJ/2pxlkIA1nL5OT1Bc3Y="
local SCRIPT = "sha256-OihVK69Pshl09n6UFK0ClrGzALoXwsR3mwuo78uu5g0="

local policy = "default-src 'none'; connect-src 'self'; img-src data:; "
    .. "style-src '" .. STYLE .. "'; script-src '" .. SCRIPT .. "'; "
    .. "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

-- Comments and indentation are not sent.
local html = ([==[
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>bufpool status</title>
<style>
:root { --bg: #f6f7f9; --card: #fff; --ink: #1b2330; --dim: #5b6573;
  --line: #dde2e9; --a: #1f6feb; --b: #b35900; --c: #7d8796; --ok: #1a7f37;
  --bad: #b42318 }
@media (prefers-color-scheme: dark) { :root { --bg: #11151b;
  --card: #1a2029; --ink: #e6ebf2; --dim: #9aa5b3; --line: #303946;
  --a: #6cb0ff; --b: #f0a050; --c: #8792a2; --ok: #57c972; --bad: #ff8078 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 16px; max-width: 1100px;
  background: var(--bg); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums }
header { display: flex; flex-wrap: wrap; gap: 4px 14px;
  align-items: baseline }
h1 { font-size: 22px; margin: 0 }
h2 { font-size: 15px; margin: 0 }
small, th, dt, .dim { color: var(--dim); font-size: 13px }
#state { margin-left: auto; font-weight: 600; color: var(--dim) }
#state.live { color: var(--ok) }
#state.off { color: var(--bad) }
#note:empty { display: none }
#note { border-left: 4px solid var(--b); padding: 8px 12px;
  background: var(--card); margin: 12px 0 0 }
section, .tiles > div { background: var(--card); border-radius: 8px;
  border: 1px solid var(--line); padding: 12px 14px; min-width: 0 }
.tiles, .charts { display: grid; gap: 12px; margin: 12px 0 }
.tiles { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)) }
.charts { grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)) }
section { margin-bottom: 12px }
.charts section { margin: 0 }
dl, dd { margin: 0 }
dd { font-size: 22px; font-weight: 600 }
dd + dd { font-size: 13px; font-weight: 400; color: var(--dim) }
.stale dd, .stale svg, .stale table { opacity: .6 }
svg { display: block; width: 100%; height: 110px; margin-top: 2px;
  border: solid var(--line); border-width: 1px 0 }
path { fill: none; stroke: var(--a); stroke-width: 2;
  vector-effect: non-scaling-stroke; stroke-linejoin: round }
.b { stroke: var(--b); stroke-dasharray: 6 3 }
.c { stroke: var(--c); stroke-dasharray: 2 3 }
.axis { display: flex; justify-content: space-between }
.key { display: flex; flex-wrap: wrap; gap: 0 14px }
.key svg { display: inline-block; width: 24px; height: 8px; margin: 0 5px 2px 0;
  border: 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: 4px 0 4px 12px; white-space: nowrap;
  border-top: 1px solid var(--line) }
th { font-weight: 500; border: 0 }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
.name td:first-child { white-space: normal; overflow-wrap: anywhere;
  unicode-bidi: isolate; min-width: 90px; max-width: 260px }
.bar, th.bar { width: 40%; text-align: left }
.bar svg { width: 100%; min-width: 90px; height: 14px; margin: 0; border: 0;
  background: var(--line); border-radius: 3px }
rect { fill: var(--a) }
rect + rect { fill: var(--b) }
rect + rect + rect { fill: var(--c) }
select { font: inherit; max-width: 240px; color: inherit;
  background: var(--card); border: 1px solid var(--line); border-radius: 4px;
  padding: 2px 4px }
.top { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: baseline;
  justify-content: space-between }
a { color: var(--a) }
</style>
<header><h1>bufpool</h1><small id="about"></small>
<span id="state" role="status">Loading</span></header>
<noscript><p>This page needs JavaScript. The figures are
<a href="?format=json">here as JSON</a>.</p></noscript>
<p id="note"></p>
<main id="main">
<dl class="tiles">
<div><dt>Checked out</dt><dd id="out"></dd><dd id="out2"></dd></div>
<div><dt>Idle memory</dt><dd id="idle"></dd><dd id="idle2"></dd></div>
<div><dt>Memory from the system</dt><dd id="mem"></dd><dd id="mem2"></dd></div>
<div><dt>Hit rate</dt><dd id="hit"></dd><dd id="hit2"></dd></div>
<div><dt>Left to the collector</dt><dd id="gc"></dd><dd id="gc2"></dd></div>
</dl>
<div class="charts" id="charts"></div>
<section><div class="top"><h2>Occupancy by class</h2>
<label class="dim">Pool <select id="pick"></select></label></div>
<div class="key dim" id="states"></div>
<div class="scroll" tabindex="0" role="region" aria-label="Classes"><table>
<thead><tr><th>Class<th class="bar">Share<th>Out
<th>Cached<th>Ready<th>Hit rate<th>Misses<th>Median request</thead>
<tbody id="classes"></tbody>
</table></div></section>
<section><h2>Pools</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Pools">
<table class="name"><thead><tr>
<th>Name<th>Out<th>Peak<th>Oldest<th>Out bytes<th>Idle<th>System<th>Limit
<th>Given back<th>Hit rate<th>Misses<th>Collector<th>In transit<th>Lost</thead>
<tbody id="pools"></tbody>
</table></div></section>
<section id="where" hidden><h2>Where buffers were checked out</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Places">
<table class="name"><thead><tr><th>Place<th>Pool<th>Worker<th>Out<th>Out bytes
<th>Oldest<th>Collector<th>Request end</thead><tbody id="sites"></tbody>
</table></div></section>
<section><h2>Workers</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Workers">
<table><thead><tr><th>Worker
<th>Process<th>Age<th>Out<th>Idle<th>System<th>Hit rate</thead>
<tbody id="workers"></tbody></table></div></section>
</main>
<p class="dim">The same as <a href="?format=json">JSON</a>,
<a href="?format=openmetrics">OpenMetrics</a>,
<a href="?format=prometheus">Prometheus text</a>.</p>
<script>
"use strict";
const SPAN = 180, $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const node = (tag, set, parent) => {
  const made = /^(svg|path|rect)$/.test(tag)
    ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const key in set) {
    if (key === "text") made.textContent = set.text;
    else made.setAttribute(key, set[key]);
  }
  if (parent) parent.append(made);
  return made;
};
const show = (where, text) => {
  text = String(text);
  if (where.textContent !== text) where.textContent = text;
};
const count = n => n.toLocaleString("en");
const bytes = n => {
  let unit = 0;
  while (n >= 1023.95 && unit < 4) { n /= 1024; unit++; }
  return (n < 100 && n % 1 ? n.toFixed(1) : Math.round(n)) + " "
    + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
};
// Of what leak detection has recorded, or undefined.
const age = s => s === undefined ? "\u2013" : s < 120 ? s.toFixed(0) + " s"
  : s < 7200 ? (s / 60).toFixed(0) + " min" : (s / 3600).toFixed(0) + " h";
const share = (hits, misses) => hits + misses > 0
  ? hits / (hits + misses) : null;
const percent = x => x === null ? "\u2013"
  : (x > 0.9995 && x < 1 ? "> 99.9" : (100 * x).toFixed(1)) + " %";
const rate = f => percent(share(f.hits, f.misses));

let past = [], pool = "all", seen = null, failed = null;

// As a sample of the history, with the share of hits since the one before.
const sample = (time, totals) => {
  const before = past[past.length - 1];
  const s = { time, out: totals.checked_out, hits: totals.hits,
    misses: totals.misses, used: totals.bytes_checked_out,
    idle: totals.cached_bytes, mem: totals.committed_bytes, rate: null };
  if (before && s.hits >= before.hits && s.misses >= before.misses)
    s.rate = share(s.hits - before.hits, s.misses - before.misses);
  if (before && time <= before.time && time > before.time - 5) return;
  // The server's clock was set back.
  if (before && time < before.time) past = [];
  past.push(s);
  while (past[0].time < time - SPAN || past.length > 2 * SPAN) past.shift();
};

const charts = [
  ["Memory", bytes, [["mem", "From the system", "c"], ["idle", "Idle", "b"],
    ["used", "Checked out", "a"]]],
  ["Buffers checked out", count, [["out", "Out", "a"]]],
  ["Hit rate, by second", percent, [["rate", "Hits of checkouts", "a"]]],
].map(([title, format, lines]) => {
  const box = node("section", {}, $("charts"));
  node("h2", { text: title }, box);
  const most = node("div", { class: "dim" }, box);
  const svg = node("svg", { viewBox: `0 0 ${SPAN} 100`, role: "img",
    preserveAspectRatio: "none" }, box);
  const axis = node("div", { class: "axis dim" }, box);
  node("span", { text: "3 minutes ago" }, axis);
  node("span", { text: "now" }, axis);
  const key = node("div", { class: "key dim" }, box);
  const drawn = lines.map(([field, label, look]) => {
    const item = node("span", {}, key);
    const mark = node("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" },
      item);
    node("path", { class: look, d: "M0 4H24" }, mark);
    return { field, label, value: node("span", {}, item),
      path: node("path", { class: look }, svg) };
  });
  return { title, format, svg, most, drawn };
});

// The top of an axis: a power of two, or half as much again, so that it rests.
const ceiling = n => {
  const step = 2 ** Math.floor(Math.log2(Math.max(n, 1)));
  return [1, 1.5, 2].map(x => x * step).find(x => x >= n * 1.02) || 4 * step;
};

const draw = chart => {
  const last = past[past.length - 1];
  let most = 1;
  if (chart.format !== percent) {
    most = 4;
    for (const s of past)
      for (const line of chart.drawn) most = Math.max(most, s[line.field]);
    most = ceiling(most);
  }
  show(chart.most, chart.format(most));
  for (const line of chart.drawn) {
    let d = "", before = null, value = null;
    for (const s of past) {
      const y = s[line.field];
      if (y === null) { before = null; continue; }
      const x = (SPAN - last.time + s.time).toFixed(1);
      d += (before !== null && s.time - before < 3.5 ? "L" : "M") + x + " "
        + (98 - 96 * y / most).toFixed(1);
      before = s.time;
      value = y;
    }
    line.path.setAttribute("d", d);
    show(line.value, line.label + " " + chart.format(value));
  }
  chart.svg.setAttribute("aria-label", chart.title + " over 3 minutes, now: "
    + chart.drawn.map(line => line.value.textContent).join(", "));
};

// Rows of texts into a table's body; rows that are there are used again.
const fill = (body, rows) => {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, i) => {
    const row = body.rows[i] || body.insertRow();
    cells.forEach((cell, j) => {
      const td = row.cells[j] || row.insertCell();
      if (typeof cell === "function") cell(td);
      else show(td, cell);
    });
  });
};

const median = c => {
  const all = c.requests.reduce((a, b) => a + b);
  let part = 128, sum = 0;
  for (const n of c.requests) if (2 * (sum += n) < all) part /= 2;
  return !all || !c.size ? "\u2013" : "\u2264 " + bytes(c.size / part)
    + (part > 2 && c.size > 4096 && all > 99 ? `, 1/${part} of the class` : "");
};

const STATES = ["out", "cached", "ready"];
const bar = parts => td => {
  td.className = "bar";
  const svg = td.firstChild || node("svg", { viewBox: "0 0 100 1", role: "img",
    preserveAspectRatio: "none" }, td);
  const whole = parts.reduce((a, b) => a + b);
  let x = 0;
  parts.forEach((n, i) => {
    const rect = svg.children[i] || node("rect", { height: 1 }, svg);
    const width = whole > 0 ? 100 * n / whole : 0;
    rect.setAttribute("x", x);
    rect.setAttribute("width", width);
    x += width;
  });
  svg.setAttribute("aria-label", STATES.map((s, i) => parts[i] + " " + s)
    .join(", "));
};
STATES.forEach((state, i) => {
  const item = node("span", { class: "bar" }, $("states"));
  item.style.width = "auto";
  bar(STATES.map((_, j) => j === i ? 1 : 0))(item);
  item.className = "";
  item.append(state);
});

const render = report => {
  const all = report.all, t = all.totals, last = past[past.length - 1];
  const ten = past.find(s => s.time >= last.time - 10.5);
  show($("about"), `${report.version}, ${report.workers_shown} of `
    + `${report.workers_configured} workers`);
  show($("note"), report.note || "");
  show($("out"), count(t.checked_out));
  show($("out2"), `${bytes(t.bytes_checked_out)}, peak `
    + count(t.peak_checked_out)
    + (t.oldest === undefined ? "" : ", oldest " + age(t.oldest)));
  show($("idle"), bytes(t.cached_bytes));
  show($("idle2"), bytes(t.wiped_bytes) + " wiped so far");
  show($("mem"), bytes(t.committed_bytes));
  const refused = t.refused_by_max_bytes + t.refused_by_system;
  const n = report.workers_shown;
  show($("mem2"), (refused ? count(refused) + " times refused, " : "")
    + (t.pressed_bytes ? bytes(t.pressed_bytes) + " given back, " : "")
    + `in ${n} worker` + (n === 1 ? "" : "s"));
  show($("hit"), rate(t));
  show($("hit2"), percent(share(last.hits - ten.hits,
    last.misses - ten.misses)) + " in the last 10 s");
  show($("gc"), count(t.gc_returns));
  show($("gc2"), !t.gc_returns ? "no release was forgotten"
    : "releases that were forgotten"
      + (report.sites.length ? "" : ": leak_detection says where"));
  charts.forEach(draw);

  // A name of a pool is never a key of an object of ours: it may be anything.
  const pools = Object.entries(all.pools).sort((a, b) => a[0] < b[0] ? -1 : 1)
    .map(([name, f]) => ["=" + name, name, f]);
  if (all.unnamed) pools.push(["none", "(pools without a name)", all.unnamed]);
  const choice = [["all", "All pools", t], ...pools], pick = $("pick");
  choice.forEach(([value, label], i) => {
    const option = pick.options[i] || node("option", {}, pick);
    option.value = value;
    show(option, label);
  });
  pick.length = choice.length;
  const chosen = choice.find(c => c[0] === pool) || choice[0];
  pick.value = chosen[0];

  const large = chosen[2].large;
  const line = (label, c) => [label, bar(STATES.map(s => c[s] || 0)),
    count(c.out), count(c.cached), c.ready === undefined ? "\u2013"
      : count(c.ready), rate(c), count(c.misses), median(c)];
  fill($("classes"), [...chosen[2].classes.map(c => line(bytes(c.size), c)),
    line("Larger", large)]);
  fill($("pools"), pools.map(([, label, f]) => [label, count(f.checked_out),
    count(f.peak_checked_out), age(f.oldest), bytes(f.bytes_checked_out),
    bytes(f.cached_bytes), bytes(f.committed_bytes),
    f.max_bytes ? bytes(f.max_bytes) : "none", bytes(f.pressed_bytes), rate(f),
    count(f.misses), count(f.gc_returns), count(f.in_transit),
    count(f.lost)]));
  $("where").hidden = !report.sites.length;
  fill($("sites"), report.sites.map(s => [s.place, s.pool, s.worker,
    count(s.buffers), bytes(s.bytes),
    age(s.buffers ? s.oldest : undefined),
    count(s.gc_returns), count(s.request_returns)]));
  fill($("workers"), report.workers.map(w => [w.id
    + (w.id === report.answered_by ? " (answered)" : ""), w.pid,
    w.age.toFixed(1) + " s", count(w.totals.checked_out),
    bytes(w.totals.cached_bytes), bytes(w.totals.committed_bytes),
    rate(w.totals)]));
};

let current = null;
$("pick").onchange = e => { pool = e.target.value; render(current); };

const state = (look, text) => {
  $("state").className = look;
  show($("state"), text);
  $("main").className = look === "off" ? "stale" : "";
};

const poll = async () => {
  const abort = new AbortController();
  const limit = setTimeout(() => abort.abort(), 3000);
  try {
    const fresh = !seen || Date.now() - seen > 3000;
    const answer = await fetch("?format=json&brief=1"
      + (fresh ? "&history=1" : ""),
      { signal: abort.signal, cache: "no-store" });
    if (!answer.ok) throw new Error("the server answered " + answer.status);
    const report = await answer.json();
    for (const s of report.history || []) sample(s.time, s);
    sample(report.time, report.all.totals);
    seen = Date.now();
    failed = null;
    current = report;
    render(report);
    state("live", "Live");
  } catch (error) {
    failed = failed || new Date();
    state("off", (seen ? "Stale" : "Offline") + " since "
      + failed.toLocaleTimeString() + ": " + (error.name === "AbortError"
      ? "no answer within 3 s" : error.message));
  }
  clearTimeout(limit);
  setTimeout(poll, failed ? 2000 : 1000);
};
poll();
</script>
</html>
]==]):gsub("\n *// [^\n]*", ""):gsub("\n +", "\n")

return { html = html, policy = policy }
