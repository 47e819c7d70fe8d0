"use strict";
// Sorting: a click on a heading sorts its table by the plain values in data-v; missing values stay at the end.
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.v;
    const rows = [...table.tBodies[0].rows];
    const isNumber = rows.every((row) => value(row) === "" || !Number.isNaN(Number(value(row))));
    rows.sort((one, other) => {
      const a = value(one), b = value(other);
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = isNumber ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }));
}
// Filtering: only rows that hold all words typed are shown; how many they are stands beside.
for (const input of document.querySelectorAll("input.filter")) {
  const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
  const count = input.parentElement.querySelector("output");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    count.textContent = `${rows.filter((row) => !row.hidden).length} / ${rows.length}`;
  });
}
// What is folded is printed all the same.
addEventListener("beforeprint", () => document.querySelectorAll("details.rows").forEach((one) => { one.open = true; }));
// Zooming: the curves below a figure are drawn when they are first opened. Dragging zooms, a double click shows all again.
for (const details of document.querySelectorAll("details.zoom")) {
  details.addEventListener("toggle", () => {
    for (const plot of details.querySelectorAll(".plot")) if (!plot.firstChild) drawPlot(plot);
  }, { once: true });
}
function drawPlot(place) {
  const { name, over, is_log, width, lines } = JSON.parse(place.nextElementSibling.textContent);
  const steps = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const row = new Map(steps.map((step, i) => [step, i]));
  const columns = lines.map((line) => {
    const column = new Array(steps.length).fill(null);
    line.x.forEach((step, i) => { column[row.get(step)] = line.y[i]; });
    return column;
  });
  const ink = getComputedStyle(place).color;
  const axis = { stroke: ink, grid: { stroke: "#8883", width: 1 }, ticks: { stroke: "#8883", width: 1 } };
  const said = document.createElement("output");
  said.textContent = "\u00a0";
  const tell = (u) => {
    const at = u.series.findIndex((one, i) => i && one._focus && one.show);
    const i = u.cursor.idx;
    if (at < 1 || i == null) { said.textContent = "\u00a0"; return; }
    let near = i; // the runs need not have been told at the same steps
    for (let reach = 1; columns[at - 1][near] == null && reach < steps.length; reach++) {
      near = [i - reach, i + reach].find((k) => columns[at - 1][k] != null) ?? near;
    }
    said.textContent = `${lines[at - 1].run}   ${over} ${steps[near].toLocaleString()}   ${name} ${columns[at - 1][near]}`;
  };
  const drawn = new uPlot({
    width: place.clientWidth, height: 380, legend: { show: false },
    scales: { x: { time: false }, y: { distr: is_log ? 3 : 1 } },
    axes: [{ ...axis, label: over }, { ...axis, label: name, size: 70 }],
    cursor: { focus: { prox: 1e4 }, drag: { x: true, y: true, uni: 30 } }, focus: { alpha: 0.2 },
    series: [{}, ...lines.map((line) => ({ label: line.run, stroke: line.colour, width, spanGaps: true, points: { show: false } }))],
    hooks: { setCursor: [tell], setSeries: [tell] },
  }, [steps, ...columns], place);
  const groups = document.createElement("p");
  for (const [group, colour] of new Map(lines.map((line) => [line.group, line.colour]))) {
    const label = groups.appendChild(document.createElement("label"));
    const box = label.appendChild(document.createElement("input"));
    box.type = "checkbox";
    box.checked = true;
    box.style.accentColor = colour;
    label.append(group);
    box.addEventListener("change", () => drawn.batch(() => lines.forEach((line, i) => {
      if (line.group === group) drawn.setSeries(i + 1, { show: box.checked });
    })));
  }
  place.append(groups, said);
  addEventListener("resize", () => drawn.setSize({ width: place.clientWidth, height: 380 }));
}
