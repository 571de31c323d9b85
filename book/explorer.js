// The explorer page: hands what its form says to the chart (Vega) and to the rows of the table.
const page = document.querySelector(".explorer");
const form = page.querySelector("form");
const body = page.querySelector("tbody");
const rows = [...body.rows];
const headings = [...page.querySelectorAll("thead th")];
const values = row => [...row.cells].map(cell => cell.dataset.value ?? cell.textContent);
const ready = vegaEmbed(page.querySelector(".chart"), explorerChart, {actions: false, renderer: "svg"});

let changes = 0;

async function show() {
  const change = ++changes;
  page.ariaBusy = "true";
  const said = new FormData(form);
  const [study, methods, seeds] = [said.get("study"), said.getAll("method"), said.getAll("seed")];
  for (const part of page.querySelectorAll("[data-studies]"))
    part.hidden = !JSON.parse(part.dataset.studies).includes(study);
  const words = said.get("words").toLowerCase().split(/\s+/);
  for (const row of rows) {
    const [method, seed] = values(row);
    const text = row.textContent.toLowerCase();
    row.hidden = row.dataset.study !== study || !methods.includes(method) || !seeds.includes(seed)
      || !words.every(word => text.includes(word));
  }
  const {view} = await ready;
  view.signal("study", study).signal("quantity", said.get("quantity")).signal("methods", methods)
    .signal("seeds", seeds.map(Number)).signal("single", said.get("lines") === "seeds");
  await view.runAsync();
  page.querySelector(".empty").hidden = page.querySelector(".mark-line path") !== null;
  page.querySelector("output").textContent = `${rows.filter(row => !row.hidden).length} runs`;
  if (change === changes) page.ariaBusy = "false";
}

function sort(place) {
  const up = headings[place].ariaSort !== "ascending";
  headings.forEach((heading, i) => heading.ariaSort = i === place ? (up ? "ascending" : "descending") : null);
  const order = (a, b) => a.localeCompare(b);
  const compare = (a, b) => {
    const [x, y] = [values(a)[place], values(b)[place]];
    if ((x === "–") !== (y === "–")) return x === "–" ? 1 : -1;  // a missing value is last
    return (up ? 1 : -1) * (isNaN(x) || isNaN(y) ? order(x, y) : x - y);
  };
  body.append(...rows.sort(compare));
}

headings.forEach((heading, place) => heading.querySelector("button").onclick = () => sort(place));
for (const [name, checked] of [["all", true], ["none", false]])
  form.querySelector(`[data-${name}]`).onclick = () => {
    for (const box of form.querySelectorAll("[name=method]")) box.checked = checked;
    show();
  };
form.addEventListener("change", show);
form.querySelector("[name=words]").addEventListener("input", show);
form.addEventListener("submit", event => event.preventDefault());
show();
