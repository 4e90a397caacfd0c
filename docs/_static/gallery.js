// The activations' index: shows what the form asks for, sorts the table, keeps the form in the address.
"use strict";

const form = document.querySelector(".gallery-form");
const cards = [...document.querySelectorAll(".card")];
const rows = [...document.querySelectorAll(".facts tbody tr")];
const FLAGS = [...form.querySelectorAll("[type=checkbox]")].map((box) => box.name);

const wanted = () =>
  new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));

function fits(card, asked) {
  const text = card.textContent.toLowerCase();
  const words = (asked.get("q") ?? "").toLowerCase().split(/\s+/);
  const family = asked.get("family") ?? card.dataset.family;
  const flags = card.dataset.flags.split(" ");
  return (
    family === card.dataset.family &&
    words.every((word) => text.includes(word)) &&
    FLAGS.every((flag) => !asked.has(flag) || flags.includes(flag))
  );
}

function show() {
  const asked = wanted();
  const found = cards.filter((card) => fits(card, asked));
  const names = new Set(found.map((card) => card.dataset.name));
  for (const entry of [...cards, ...rows]) entry.hidden = !names.has(entry.dataset.name);
  const asTable = asked.get("view") === "table";
  for (const list of document.querySelectorAll(".gallery"))
    list.closest("section").hidden = asTable || !list.querySelector(".card:not([hidden])");
  document.querySelector(".facts").closest("section").hidden = !asTable;
  form.querySelector("output").textContent = `${found.length} of ${cards.length}`;
}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  form.reset();
  for (const field of form.elements) {
    if (field.type === "checkbox") field.checked = asked.has(field.name);
    else if (field.type === "radio") field.checked = field.value === (asked.get(field.name) ?? "");
    else if (field.name) field.value = asked.get(field.name) ?? "";
  }
  show();
}

function writeAddress() {
  const asked = wanted().toString();
  history.replaceState(null, "", location.href.split("#")[0] + (asked && `#${asked}`));
  show();
}

// A cell's number, its first where it is a range; what has none comes last.
function sortKey(text) {
  const found = text.replaceAll("−", "-").match(/^[[(]?(-?(?:[\d.]+|∞))/);
  return found ? Number(found[1].replace("∞", "Infinity")) : NaN;
}

function compare(a, b, sign) {
  const [x, y] = [sortKey(a), sortKey(b)];
  if (Number.isNaN(x) && Number.isNaN(y)) return sign * a.localeCompare(b);
  return Number.isNaN(x) - Number.isNaN(y) || sign * (x > y) - sign * (x < y);
}

function sortBy(heading) {
  const rising = heading.ariaSort !== "ascending";
  for (const other of heading.parentElement.cells) other.ariaSort = null;
  heading.ariaSort = rising ? "ascending" : "descending";
  const text = (row) => row.cells[heading.cellIndex].textContent;
  rows.sort((a, b) => compare(text(a), text(b), rising ? 1 : -1));
  rows[0].parentElement.append(...rows);
}

for (const heading of document.querySelectorAll(".facts thead th")) {
  const button = document.createElement("button");
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sortBy(heading));
  heading.append(button);
}
form.addEventListener("input", writeAddress);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(writeAddress)); // once it is reset
window.addEventListener("hashchange", readAddress);
form.hidden = false;
readAddress();
