"""The script of HTML reports: sorts and filters the tables. Without it the page is complete."""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.rows")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key ?? cell.textContent.trim();
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...body.rows].sort((a, b) =>
        key(a, column).localeCompare(key(b, column), undefined, {numeric: true}));
      body.append(...(down ? sorted.reverse() : sorted));
    });
  });

  const filters = document.createElement("div");
  filters.className = "filters";
  const words = document.createElement("input");
  words.type = "search";
  words.placeholder = "filter: words that a row must have";
  words.setAttribute("aria-label", "filter");
  const count = document.createElement("output");
  filters.append(words);
  let status = null;
  const states = [...new Set([...body.rows].map(row => row.dataset.status).filter(Boolean))];
  if (states.length > 1) {
    status = document.createElement("select");
    status.setAttribute("aria-label", "status");
    status.append(new Option("every status", ""), ...states.map(s => new Option(s, s)));
    filters.append(status);
  }
  filters.append(count);
  table.closest(".wide").before(filters);
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(wanted.every(word => text.includes(word)) &&
                     (!status || !status.value || row.dataset.status === status.value));
      shown += !row.hidden;
    }
    count.textContent = shown === body.rows.length ? `${shown} rows`
                                                   : `${shown} of ${body.rows.length} rows`;
  };
  words.addEventListener("input", apply);
  status?.addEventListener("change", apply);
  apply();
}
"""
