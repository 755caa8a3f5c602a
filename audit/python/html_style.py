"""The style sheet of HTML reports. Light and dark by the reader's preference."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fbfbfa; --panel: #ffffff; --text: #1d2126; --dim: #5d6570; --line: #d9dde2;
  --accent: #1f5fbf; --ok: #1a7f37; --finding: #c0262d; --error: #c0262d; --skipped: #8a6100;
  --row: #f1f4f8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --panel: #1b1f25; --text: #e4e7eb; --dim: #9aa4b0; --line: #333a43;
    --accent: #7fb2ff; --ok: #56d364; --finding: #ff7b72; --error: #ff7b72;
    --skipped: #e3b341; --row: #22272e;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 86rem; padding: 1.5rem; background: var(--ground);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif;
}
h1 { font-size: 1.4rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.machine { margin: 0; overflow-wrap: anywhere; color: var(--dim); }
code, pre, td.id, .mono { font-family: ui-monospace, monospace; font-size: .92em; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; }
a { color: var(--accent); }
section + p.machine { margin-top: 1.5rem; }
ul.summary { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; padding: 0; }
ul.summary li {
  border: 1px solid var(--line); border-radius: .5rem; background: var(--panel);
  padding: .4rem .9rem;
}
ul.summary b { font-size: 1.25rem; margin-right: .35rem; }
.status { font-weight: 600; white-space: nowrap; }
.ok { color: var(--ok); } .finding { color: var(--finding); }
.error { color: var(--error); } .skipped { color: var(--skipped); }
.filters { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: .6rem 0; }
.filters input, .filters select {
  font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: .4rem; padding: .3rem .55rem;
}
.filters input { min-width: 18rem; }
.filters output { color: var(--dim); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; background: var(--panel); }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem; }
th { border-bottom: 2px solid var(--line); white-space: nowrap; }
td { border-top: 1px solid var(--line); overflow-wrap: anywhere; min-width: 5rem; }
td.long { min-width: 16rem; }
td > code { white-space: nowrap; }
td > details { min-width: 11rem; }
td.status, td.number { min-width: 0; overflow-wrap: normal; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--row); }
th button {
  font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer;
}
th button::after { content: "\\2195"; color: var(--dim); margin-left: .3rem; }
th[aria-sort=ascending] button::after { content: "\\2191"; color: var(--accent); }
th[aria-sort=descending] button::after { content: "\\2193"; color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .8rem; margin: .4rem 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
@media print {
  body { max-width: none; padding: 0; } .filters { display: none; }
  .wide { overflow: visible; border: 0; }
}
"""
