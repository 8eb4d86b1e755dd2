"use strict";
// Draws the charts of a comparison's page.

const DASHES = ["", "7 4", "2 3", "9 3 2 3"]; // by variant: another device or protocol
const MAP_ROW = 26;

function colourOf(line) {
  return line.group === null ? data.colours.published : data.colours.groups[line.group];
}

// Shapes repeat later than colours do, so that no two groups look alike among many.
function shapeOf(line) {
  if (line.group === null) return line.name.includes("BlockPruner") ? "cross" : "diamond";
  return ["circle", "square", "triangle"][Math.floor(line.group / data.colours.shades) % 3];
}

function drawPlot(holder) {
  const chart = data[holder.dataset.list][Number(holder.dataset.chart)];
  const isTradeOff = holder.dataset.list === "trade_offs";
  const width = Math.max(holder.clientWidth, 240);
  const height = isTradeOff ? 320 : 240;
  const points = chart.lines.flatMap((line) => line.points.map((point) => ({ ...point, line })));
  const values = points.flatMap((p) => [p.y - (p.error ?? 0), p.y + (p.error ?? 0)]);
  const xs = points.map((p) => p.x);
  const xExtent = isTradeOff ? extent(xs, 0.06, false) : [-0.03 * Math.max(...xs), Math.max(...xs) * 1.03];
  const yExtent = extent(values, 0.07, chart.logarithmic);
  const x = linear(xExtent, [EDGE.left, width - EDGE.right]);
  const y = (chart.logarithmic ? logarithmic : linear)(yExtent, [height - EDGE.bottom, EDGE.top]);
  const { svg, add } = canvas(holder, width, height);
  const yTicks = chart.logarithmic ? logarithmicTicks(yExtent) : linearTicks(yExtent, 5);
  drawAxes(add, x, y, linearTicks(xExtent, width > 420 ? 8 : 5), yTicks, width, height);
  add("text", { x: (EDGE.left + width) / 2, y: height - 3, "text-anchor": "middle" }, chart.x_axis);
  if (chart.level !== null) drawLevel(add, EDGE.left, width - EDGE.right, y(chart.level));
  for (const front of chart.fronts) drawFront(add, front, x, y);
  for (const line of chart.lines) drawLine(add, line, x, y);
  for (const point of points) drawPoint(add, point, x(point.x), y(point.y));
  followPointer(svg, add, points, x, y, width, height);
}

function drawFront(add, front, x, y) {
  const path = front.map((p) => `${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join(" ");
  add("polyline", { class: "front", points: path, fill: "none", stroke: "var(--ink)", "stroke-width": 7, "stroke-opacity": 0.1, "stroke-linejoin": "round", "stroke-linecap": "round" });
}

function drawLine(add, line, x, y) {
  const colour = colourOf(line);
  for (const p of line.points) {
    if (p.error === null) continue;
    const [top, bottom] = [y(p.y + p.error), y(p.y - p.error)];
    add("path", { class: "error", d: `M${x(p.x)},${top}V${bottom}m-3,0h6m-6,${top - bottom}h6`, stroke: colour, "stroke-opacity": 0.45, "stroke-width": 1.2, fill: "none" });
  }
  const path = line.points.map((p) => `${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join(" ");
  const dashes = line.group === null ? "1 4" : DASHES[line.variant % DASHES.length];
  add("polyline", { class: "line", points: path, fill: "none", stroke: colour, "stroke-width": 1.8, "stroke-linejoin": "round", ...(dashes && { "stroke-dasharray": dashes }) });
}

function drawPoint(add, point, x, y) {
  const colour = point.is_dense ? "var(--muted)" : colourOf(point.line);
  const isHollow = point.is_dense || point.line.group === null || point.line.variant % 2 === 1;
  const look = { class: "mark", fill: isHollow ? "#fff" : colour, stroke: isHollow ? colour : "#fff", "stroke-width": isHollow ? 1.8 : 1 };
  const shape = point.is_dense ? "diamond" : shapeOf(point.line);
  if (point.is_on_front) add("circle", { class: "ring", cx: x, cy: y, r: 8.5, fill: "none", stroke: "var(--ink)", "stroke-width": 1.8 });
  if (shape === "circle") add("circle", { ...look, cx: x, cy: y, r: 4.2 });
  else if (shape === "square") add("rect", { ...look, x: x - 3.8, y: y - 3.8, width: 7.6, height: 7.6 });
  else if (shape === "cross") add("path", { class: "mark", stroke: colour, "stroke-width": 2, d: `M${x - 4},${y - 4}l8,8m-8,0l8,-8` });
  else if (shape === "triangle") add("path", { ...look, d: `M${x - 4.6},${y + 3.8}h9.2l-4.6,-8.4z` });
  else add("path", { ...look, d: `M${x},${y - 5}l5,5l-5,5l-5,-5z` });
}

function followPointer(svg, add, points, x, y, width, height) {
  const halo = add("circle", { r: 11, fill: "none", stroke: "var(--ink)", "stroke-width": 1.2, "stroke-dasharray": "2 2", visibility: "hidden" });
  const area = add("rect", { x: EDGE.left - 8, y: 0, width: width - EDGE.left + 8, height, fill: "transparent" });
  area.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const distance = (p) => Math.hypot(x(p.x) - event.clientX + box.left, y(p.y) - event.clientY + box.top);
    const nearest = points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    halo.setAttribute("cx", x(nearest.x));
    halo.setAttribute("cy", y(nearest.y));
    halo.setAttribute("visibility", "visible");
    showTip(event, nearest.text);
  });
  area.addEventListener("pointerleave", () => {
    halo.setAttribute("visibility", "hidden");
    hideTip();
  });
}

// --- maps -------------------------------------------------------------------------------------

function drawMap(holder) {
  const map = data.maps[Number(holder.dataset.map)];
  const width = Math.max(holder.clientWidth, 200);
  const pitch = Math.min(width / map.layers, 34);
  const { svg } = canvas(holder, width, 2 * MAP_ROW + 2);
  for (const cell of map.cells) {
    const top = cell.kind === "attn" ? 0 : MAP_ROW + 2;
    svg.appendChild(drawCell(cell, cell.layer * pitch, top, pitch - Math.max(1, pitch * 0.12)));
  }
}

function drawCell(cell, x, y, width) {
  const group = make("g", { class: "cell" });
  const add = (tag, attributes) => group.appendChild(make(tag, attributes));
  const share = cell.removed ? 0 : cell.width / cell.dense_width;
  const lost = cell.removed ? "blocks" : share === 1 ? null : cell.kind === "attn" ? "heads" : "mlp_channels";
  const height = MAP_ROW - 2;
  const empty = cell.removed ? "var(--blocks)" : lost ? data.colours.tints[lost] : "var(--kept)";
  add("rect", { x, y, width, height, fill: empty });
  if (lost && !cell.removed) {
    add("rect", { x, y: y + height * (1 - share), width, height: height * share, fill: "var(--kept)" });
    add("rect", { class: "edge", x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1, fill: "none", stroke: `var(--${lost})` });
  }
  group.addEventListener("pointermove", (event) => showTip(event, cellText(cell, share)));
  group.addEventListener("pointerleave", hideTip);
  return group;
}

function cellText(cell, share) {
  const name = `layer ${cell.layer}, ${cell.kind === "attn" ? "attention" : "MLP"}`;
  if (cell.removed) return `${name}: gone`;
  if (share === 1) return `${name}: whole`;
  return `${name}: ${percentOf(share)} % left\n${cell.width.toLocaleString("en")} of ${cell.dense_width.toLocaleString("en")} channels`;
}

// --- all --------------------------------------------------------------------------------------

function drawAll() {
  document.querySelectorAll(".plot").forEach((holder) => {
    if (!holder.parentElement.hidden) drawPlot(holder);
  });
  document.querySelectorAll(".map").forEach(drawMap);
}

function showScale(scale) {
  for (const button of document.querySelectorAll(".scales button")) {
    button.setAttribute("aria-pressed", button.dataset.scale === scale);
  }
  for (const name of ["relative", "absolute"]) {
    for (const figure of document.querySelectorAll(`.scale-${name}`)) figure.hidden = name !== scale;
  }
  drawAll();
}

redrawWhenResized(drawAll);
for (const button of document.querySelectorAll(".scales button")) {
  button.addEventListener("click", () => showScale(button.dataset.scale));
}
document.querySelectorAll(".sortable").forEach(makeSortable);
// Without values relative to the dense model there are only plain ones to show.
showScale(data.charts.some((chart) => chart.scale === "relative") ? "relative" : "absolute");
document.documentElement.dataset.drawn = "yes";
