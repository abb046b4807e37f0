"use strict";
// Sorts a table by the clicked column: numbers largest first, names from a to z, a second click the other way round.
// Cells without data-v have no value and stay last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const text = head.classList.contains("text");
      const before = head.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : text;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.v;
      const compare = (a, b) => (text ? a.localeCompare(b) : a - b) * (ascending ? 1 : -1);
      const rows = [...body.rows];
      const known = rows.filter((row) => value(row) !== undefined).sort((a, b) => compare(value(a), value(b)));
      body.append(...known, ...rows.filter((row) => value(row) === undefined));
    });
  });
}
