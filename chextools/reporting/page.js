"use strict";
// What a cell stands for: data-v where it says more than its text, such as a number in full; nothing where it is undefined.
const value = cell => cell.dataset.v || cell.textContent.trim();

// A click on a heading sorts by it: numbers from the greatest, text from A; once more, the other way round.
function sort(head) {
  const table = head.closest("table"), column = head.cellIndex, numeric = head.classList.contains("n");
  const was = head.getAttribute("aria-sort");
  const descending = was ? was === "ascending" : numeric;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map(row => {
    const text = value(row.cells[column]);
    return { row, key: numeric ? parseFloat(text.replace("\u2212", "-")) : text };
  });
  const missing = key => numeric ? Number.isNaN(key) : key === "";
  const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
  keyed.sort((a, b) => missing(a.key) - missing(b.key) || (missing(a.key) ? 0 : descending ? compare(b.key, a.key) : compare(a.key, b.key)));
  table.tBodies[0].append(...keyed.map(item => item.row));
}

// Text in quotes; a spreadsheet must not take a name that starts with = + - @ for a formula.
const quoted = text => `"${text.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;

function csv(table) {
  const heads = [...table.tHead.rows[0].cells];
  const lines = [heads.map(head => head.dataset.csv).join(",")];
  for (const row of table.tBodies[0].rows)
    lines.push(heads.map((head, k) => head.classList.contains("n") ? value(row.cells[k]) : quoted(value(row.cells[k]))).join(","));
  return lines.join("\n") + "\n";
}

function download(button) {
  const url = URL.createObjectURL(new Blob([csv(button.closest(".table").querySelector("table"))], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = button.dataset.name.replace(/[^\w.-]+/g, "_").slice(0, 80) + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// A run's name leads to its details, a mark or number to its pictures: they open.
function show() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
    target.firstElementChild.focus({ preventScroll: true });
  }
}

// One metric or one task only: rows, columns, tables, figures and pictures of the others are hidden.
const form = document.getElementById("filter");
const all = name => [...document.querySelectorAll(`main [data-${name}]`)];

function choices(name) {
  const found = [...new Set(all(name).map(item => item.dataset[name]))];
  form.elements[name].replaceChildren(new Option("all", ""), ...found.map(text => new Option(text)));
  return found.length > 1;
}

function filter() {
  const wanted = { metric: form.elements.metric.value, task: form.elements.task.value };
  const fits = item => Object.entries(wanted).every(([name, text]) => !text || !(name in item.dataset) || item.dataset[name] === text);
  for (const item of new Set([...all("metric"), ...all("task")])) {
    item.hidden = !fits(item);
    if (item.tagName === "TH") for (const row of item.closest("table").tBodies[0].rows) row.cells[item.cellIndex].hidden = item.hidden;
  }
  form.querySelector("output").value = wanted.metric || wanted.task ? "The rest is hidden." : "";
}

form.hidden = !["metric", "task"].map(choices).some(Boolean);
form.addEventListener("change", filter);
form.addEventListener("submit", event => event.preventDefault());

document.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button?.className === "csv") download(button);
  else if (button?.closest("thead")) sort(button.closest("th"));
  else if (event.target.closest("a[href^='#run-'], a[href^='#pictures-']")) setTimeout(show);
});
addEventListener("hashchange", show);
show();
