"use strict";
// Sorts a table by the clicked column: numbers largest first, ranks smallest first, names from a to z, a second click
// the other way round. Cells without data-v have no value and stay last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const text = head.classList.contains("text");
      const before = head.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : text || head.classList.contains("up");
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
// Filters the rows of an article, in its tables and its pictures: by words of their names, and by kind.
for (const tools of document.querySelectorAll(".tools")) {
  const shown = [...tools.closest("article").querySelectorAll("[data-row]")];
  const rows = [...tools.closest("article").querySelectorAll(".results tbody tr")];
  const words = tools.querySelector("input[type=search]");
  const boxes = [...tools.querySelectorAll("input[type=checkbox]")];
  const filter = () => {
    const wanted = words.value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
    const left = boxes.filter((box) => !box.checked).flatMap((box) => box.value.split(" "));
    for (const one of shown) {
      const name = one.dataset.row.toLowerCase();
      const named = !wanted.length || wanted.some((word) => name.includes(word));
      one.toggleAttribute("hidden", !named || left.includes(one.dataset.kind));
    }
    const count = rows.filter((row) => !row.hidden).length;
    tools.querySelector("output").textContent = `${count} of ${rows.length} rows`;
  };
  tools.addEventListener("input", filter);
  tools.hidden = false;
  filter();
}
