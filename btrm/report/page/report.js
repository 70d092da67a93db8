"use strict";
// Sorting by a click on a column's title, and one checkpoint at a time. Without this script the page is whole.
const number = (text) => (text === "" ? NaN : Number(text));
const keyOf = (row, place) => {
  const cell = row.cells[place];
  return cell.dataset.key ?? cell.textContent.trim();
};
const order = (a, b) => {
  const x = number(a), y = number(b);
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return a.localeCompare(b, "en", { numeric: true });
};
const sortBy = (table, place, downward) => {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: keyOf(row, place) }));
  const told = rows.filter((one) => one.key !== "");
  const empty = rows.filter((one) => one.key === "");
  told.sort((a, b) => (downward ? order(b.key, a.key) : order(a.key, b.key)));
  body.append(...[...told, ...empty].map((one) => one.row));
};
for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      const downward = was === null ? head.classList.contains("n") : was === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", downward ? "descending" : "ascending");
      sortBy(table, place, downward);
    });
  });
}
const cells = [...document.querySelectorAll("details.cell")];
if (cells.length > 1) {
  const choice = document.getElementById("choice");
  for (const cell of cells) {
    const option = document.createElement("option");
    option.value = cell.id;
    option.textContent = cell.querySelector("summary").textContent;
    choice.append(option);
  }
  const show = () => {
    for (const cell of cells) {
      cell.hidden = cell.id !== choice.value;
      cell.open = !cell.hidden;
    }
  };
  choice.addEventListener("change", show);
  document.getElementById("chooser").hidden = false;
  show();
}
