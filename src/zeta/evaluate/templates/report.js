// Click a heading, or press Enter or Space on it, to sort a table by its column.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const value = (row) => {
      const text = row.cells[column].textContent.trim();
      return numeric ? Number.parseFloat(text.replace("−", "-")) || 0 : text;
    };
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => sign * ((a > b) - (a < b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// On paper nothing can be unfolded: the folded plots are printed, the folded tables are not.
const folded = [...document.querySelectorAll("details.plots:not([open])")];
addEventListener("beforeprint", () => folded.forEach((details) => { details.open = true; }));
addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
