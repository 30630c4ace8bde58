"""The fixed parts of the HTML report: its style, and the one script, which sorts tables."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5a6370; --line: #d9dde2;
  --paper: #fff; --band: #f4f6f8; --accent: #0a5fa3; --bad: #b3261e; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a0a8b2; --line: #3a4048;
  --paper: #15181c; --band: #1e2329; --accent: #6db3f2; --bad: #ff8a80; --warn: #f0b95a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
p, li { max-width: 48rem; }
ul { padding-left: 1.2rem; } li { margin: .3rem 0; }
.question { font-size: 1.15rem; margin: .2rem 0; } .soft, figcaption { color: var(--soft); }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; margin: .8rem 0 0; padding: 0; }
.chips li { list-style: none; margin: 0; padding: .1rem .7rem; border-radius: 1rem;
  background: var(--band); border: 1px solid var(--line); font-size: .9rem; }
.verdicts { background: var(--band); border-left: 4px solid var(--accent); border-radius: 4px;
  padding: .7rem 1rem .7rem 2.1rem; margin: 0; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: .87rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { text-align: left; padding: .38rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: top; } tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--band); vertical-align: bottom; line-height: 1.3;
  min-width: 5rem; } thead th.number { white-space: normal; }
tbody th { font-weight: 600; min-width: 9rem; max-width: 12rem; position: sticky; left: 0;
  background: var(--paper); } tbody th small { display: block; font-weight: 400;
  color: var(--soft); }
.number { text-align: right; white-space: nowrap; }
.sortable td:first-child { white-space: nowrap; } .sortable td:last-child { min-width: 14rem; }
.diverged, .failed { color: var(--bad); } .missing, .unfinished { color: var(--warn); }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid
  var(--accent); } th button::after { content: " \\2195"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: " \\2191"; color: var(--accent); }
th[aria-sort=descending] button::after { content: " \\2193"; color: var(--accent); }
figure { margin: 1.2rem 0 2rem; } figure > div { overflow-x: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 4px; padding: .5rem; }
img { display: block; width: 100%; max-width: 65rem; min-width: 40rem; height: auto; }
figcaption { font-size: .9rem; margin-top: .4rem; max-width: 48rem; }
figcaption b { color: var(--ink); }
pre { background: var(--band); border: 1px solid var(--line); border-radius: 4px;
  padding: .7rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .87rem; }
details { margin: .6rem 0; } summary { cursor: pointer; }
details[open] > summary { margin-bottom: .6rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .wide, figure > div {
  overflow: visible; border: 0; } table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; }
  img { min-width: 0; } figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
  .number, .sortable td:first-child { white-space: normal; }
  th button::after { content: none !important; }
  :root { --ink: #000; --soft: #444; --paper: #fff; --band: #f4f6f8; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const empty = key => key === "" || key === "-";
      const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
        : String(a).localeCompare(String(b), undefined, { numeric: true });
      const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
      rows.sort(([a], [b]) => empty(a) - empty(b) || (down ? -1 : 1) * compare(a, b));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
"""


def policy() -> str:
    """A content security policy under which a browser loads nothing and runs only SCRIPT."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
