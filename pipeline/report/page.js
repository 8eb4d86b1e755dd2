"use strict";
// Draws the charts of a run's page.

const cursors = []; // for each chart: moves its line to a ratio

// --- curves over the ratio --------------------------------------------------------------------

function drawCurve(holder) {
  const chart = data.charts[Number(holder.dataset.chart)];
  const width = Math.max(holder.clientWidth, 260);
  const height = 250;
  const points = chart.lines.flatMap((line) => line.points.map((point) => ({ ...point, line })));
  const values = points.flatMap((p) => [p.value - (p.error ?? 0), p.value + (p.error ?? 0)]);
  values.push(...chart.baselines.map((level) => level.value));
  const last = Math.max(...points.map((p) => p.ratio_percent), ...data.bands.map((b) => b.end_percent));
  const yExtent = extent(values, 0.06, chart.logarithmic);
  const x = linear([0, last], [EDGE.left, width - EDGE.right]);
  const y = (chart.logarithmic ? logarithmic : linear)(yExtent, [height - EDGE.bottom, EDGE.top]);
  const { svg, add } = canvas(holder, width, height);

  drawBands(add, x, height);
  const yTicks = chart.logarithmic ? logarithmicTicks(yExtent) : linearTicks(yExtent, 5);
  drawAxes(add, x, y, linearTicks([0, last], width > 420 ? 8 : 5), yTicks, width, height);
  add("text", { x: (EDGE.left + width) / 2, y: height - 3, "text-anchor": "middle" }, "parameters removed (%)");
  for (const level of chart.baselines) drawLevel(add, x(level.start_percent), x(level.end_percent), y(level.value));
  const cursor = add("line", { class: "cursor", y1: EDGE.top, y2: height - EDGE.bottom, visibility: "hidden" });
  for (const line of chart.lines) drawLine(add, line, x, y);
  cursors.push((ratio) => moveCursor(cursor, ratio === null ? null : x(ratio)));
  followPointer(svg, add, chart, points, x, y, width, height);
  nameLines(holder, chart);
}

function drawBands(add, x, height) {
  for (const band of data.bands) {
    const left = x(band.start_percent);
    const fill = data.colours.tints[band.dimension];
    const size = { width: x(band.end_percent) - left, height: height - EDGE.bottom - EDGE.top };
    add("rect", { class: "band", x: left, y: EDGE.top, ...size, fill });
  }
}

function drawLine(add, line, x, y) {
  const colour = data.colours.marks[line.mark];
  const at = (point, value) => `${x(point.ratio_percent).toFixed(1)},${y(value).toFixed(1)}`;
  if (line.points.some((point) => point.error !== null)) {
    const upper = line.points.map((p) => at(p, p.value + (p.error ?? 0)));
    const lower = line.points.map((p) => at(p, p.value - (p.error ?? 0))).reverse();
    add("polygon", { points: [...upper, ...lower].join(" "), fill: colour, "fill-opacity": 0.13 });
  }
  const dashes = line.mark === "decode" ? { "stroke-dasharray": "3 3" } : {};
  const path = line.points.map((p) => at(p, p.value)).join(" ");
  add("polyline", { class: "line", points: path, fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round", ...dashes });
  const radius = line.points.length > 60 ? 1.8 : 3.2;
  for (const point of line.points) drawMark(add, line.mark === "decode", x(point.ratio_percent), y(point.value), radius, colour);
}

function moveCursor(line, x) {
  line.setAttribute("visibility", x === null ? "hidden" : "visible");
  if (x !== null) {
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
}

function followPointer(svg, add, chart, points, x, y, width, height) {
  const ring = add("circle", { r: 6, fill: "none", stroke: "var(--ink)", "stroke-width": 2, visibility: "hidden" });
  const area = add("rect", { x: EDGE.left - 8, y: 0, width: width - EDGE.left + 8, height, fill: "transparent" });
  area.addEventListener("pointermove", (event) => {
    const place = event.clientX - svg.getBoundingClientRect().left;
    const distance = (point) => Math.abs(x(point.ratio_percent) - place);
    const nearest = points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    ring.setAttribute("cx", x(nearest.ratio_percent));
    ring.setAttribute("cy", y(nearest.value));
    ring.setAttribute("visibility", "visible");
    showTip(event, curveText(chart, points, nearest));
  });
  area.addEventListener("pointerleave", () => {
    ring.setAttribute("visibility", "hidden");
    hideTip();
  });
}

function curveText(chart, points, nearest) {
  const here = points.filter((point) => point.step === nearest.step);
  const marks = new Set(chart.lines.map((line) => line.mark));
  const values = here.map((p) => (marks.size > 1 ? `${p.line.name}: ${p.text}` : p.text));
  const step = data.steps.find((candidate) => candidate.step === nearest.step);
  const state = step ? `step ${step.step}: ${step.text}` : "dense model";
  return [values.join("\n"), state, `${nearest.ratio_percent.toFixed(2)} % removed`].join("\n");
}

function nameLines(holder, chart) {
  const place = holder.parentElement.querySelector(".names");
  place.replaceChildren();
  if (new Set(chart.lines.map((line) => line.mark)).size < 2) return;
  for (const line of chart.lines) {
    const swatch = document.createElement("i");
    swatch.style.borderTopColor = data.colours.marks[line.mark];
    if (line.mark === "decode") swatch.style.borderTopStyle = "dotted";
    place.append(swatch, line.name);
  }
}

// --- removal map ------------------------------------------------------------------------------

const KINDS = { attn: "attention", mlp: "MLP" };
const LAYER_HEIGHT = 168; // of attention and MLP together
const NARROWEST = 30; // of a layer, so that its text fits

function cellsAfter(count) {
  if (count >= data.steps.length) return data.cells;
  const found = new Map();
  for (const cell of data.cells) {
    found.set(cell.kind + cell.layer, { ...cell, width: cell.dense_width, removed: false, step: null });
  }
  for (const step of data.steps.slice(0, count)) {
    const cell = found.get(step.unit.split("_")[0] + step.layer);
    cell.step = step.step;
    if (step.width_after === 0) cell.removed = true;
    else cell.width = step.width_after;
  }
  return [...found.values()];
}

function drawMap(count) {
  const holder = document.getElementById("map");
  const width = Math.max(holder.clientWidth, 260);
  const left = 74;
  const most = Math.max(4, Math.floor((width - left) / NARROWEST));
  const rows = Math.ceil(data.layers / most);
  const inRow = Math.ceil(data.layers / rows);
  const pitch = Math.min((width - left) / inRow, 118);
  const heights = cellHeights();
  const rowHeight = heights.attn + heights.mlp + 36;
  const { svg, add } = canvas(holder, width, rows * rowHeight);
  for (let row = 0; row < rows; row++) drawRowNames(add, row * rowHeight, heights);
  for (const cell of cellsAfter(count)) {
    const row = Math.floor(cell.layer / inRow);
    const x = left + (cell.layer % inRow) * pitch;
    const y = row * rowHeight + (cell.kind === "attn" ? 0 : heights.attn + 6);
    svg.appendChild(drawCell(cell, x, y, pitch - Math.max(3, pitch * 0.1), heights[cell.kind]));
    if (cell.kind === "mlp") {
      const middle = x + (pitch - Math.max(3, pitch * 0.1)) / 2;
      add("text", { class: "layer-text", x: middle, y: y + heights.mlp + 15, "text-anchor": "middle" }, cell.layer);
    }
  }
}

function cellHeights() {
  const { attn, mlp } = data.block_params;
  const share = Math.min(0.6, Math.max(0.28, attn / (attn + mlp)));
  return { attn: LAYER_HEIGHT * share, mlp: LAYER_HEIGHT * (1 - share) };
}

function drawRowNames(add, top, heights) {
  add("text", { class: "name", x: 0, y: top + heights.attn / 2 + 4 }, "attention");
  add("text", { class: "name", x: 0, y: top + heights.attn + 6 + heights.mlp / 2 + 4 }, "MLP");
  add("text", { class: "layer-text", x: 0, y: top + heights.attn + heights.mlp + 21 }, "layer");
}

function drawCell(cell, x, y, width, height) {
  const group = make("g", { class: "cell" });
  const add = (tag, attributes, text) => group.appendChild(make(tag, attributes, text));
  const share = cell.removed ? 0 : cell.width / cell.dense_width;
  const lost = cell.removed ? "blocks" : share === 1 ? null : cell.kind === "attn" ? "heads" : "mlp_channels";
  const edge = lost ? `var(--${lost})` : "var(--kept)";
  const kept = height * share;
  add("rect", { x, y, width, height, rx: 3, fill: lost ? `url(#hatch-${lost})` : "var(--kept)" });
  if (lost && kept > 0) add("rect", { x, y: y + height - kept, width, height: kept, fill: "var(--kept)" });
  add("rect", { class: "edge", x, y, width, height, rx: 3, fill: "none", stroke: edge });
  if (cell.removed) {
    add("path", { d: `M${x},${y}l${width},${height}m0,${-height}l${-width},${height}`, stroke: edge, "stroke-width": 1.6 });
    if (cell.step !== null) drawText(add, `${cell.step}`, "off", x + width / 2, y + height / 2);
  } else if (share < 1) {
    const within = kept >= 18;
    drawText(add, `${percentOf(share)}%`, within ? "on" : "off", x + width / 2, y + height - (within ? kept / 2 : kept + 11));
  }
  group.addEventListener("pointermove", (event) => showTip(event, cellText(cell, share)));
  group.addEventListener("pointerleave", hideTip);
  return group;
}

function drawText(add, text, look, x, y) {
  add("text", { class: look, x, y: y + 4, "text-anchor": "middle" }, text);
}

function cellText(cell, share) {
  const name = `layer ${cell.layer}, ${KINDS[cell.kind]}`;
  const step = cell.step === null ? "" : cell.removed ? `\nwent at step ${cell.step}` : `\nlast cut at step ${cell.step}`;
  if (cell.removed) return `${name}: gone${step}`;
  if (share === 1) return `${name}: whole`;
  const channels = `${cell.width.toLocaleString("en")} of ${cell.dense_width.toLocaleString("en")} channels`;
  return `${name}: ${percentOf(share)} % left\n${channels}${step}`;
}

function stateText(count) {
  if (count === 0) return "dense model";
  const { step, text, ratio_percent } = data.steps[count - 1];
  return `after step ${step}: ${text}, ${ratio_percent.toFixed(1)} % removed`;
}

function showState() {
  const scrub = document.getElementById("scrub");
  const count = scrub ? Number(scrub.value) : data.steps.length;
  drawMap(count);
  if (!scrub) return;
  document.getElementById("scrub-text").textContent = stateText(count);
  const atEnd = count === data.steps.length;
  const ratio = count === 0 ? 0 : data.steps[count - 1].ratio_percent;
  for (const move of cursors) move(atEnd ? null : ratio);
}

// --- sensitivity ------------------------------------------------------------------------------

function drawSensitivity(holder) {
  const entry = data.sensitivity[Number(holder.dataset.sensitivity)];
  const width = Math.max(holder.clientWidth, 240);
  const height = 230;
  const limit = entry.limit ?? Infinity;
  const shown = entry.losses.filter((loss) => loss.ppl !== null).map((loss) => Math.min(loss.ppl, limit));
  const yExtent = extent([...shown, entry.base], 0.07, false);
  const x = linear([-0.6, data.layers - 0.4], [EDGE.left, width - EDGE.right]);
  const y = linear(yExtent, [height - EDGE.bottom, EDGE.top]);
  const { add, svg } = canvas(holder, width, height);
  const xTicks = linearTicks([0, data.layers - 1], Math.min(data.layers, width / 45)).filter(Number.isInteger);
  drawAxes(add, x, y, xTicks, linearTicks(yExtent, 5), width, height);
  add("text", { x: (EDGE.left + width) / 2, y: height - 3, "text-anchor": "middle" }, "layer");
  if (entry.dense_ppl !== null) drawLevel(add, EDGE.left, width - EDGE.right, y(entry.dense_ppl));
  const two = new Set(entry.losses.map((loss) => loss.unit)).size > 1;
  const radius = Math.max(1.6, Math.min(4.5, (x(1) - x(0)) / (two ? 5 : 3)));
  for (const loss of entry.losses) {
    const shift = !two ? 0 : loss.unit === "attn" ? -0.19 : 0.19;
    drawLoss(svg, loss, x(loss.layer + shift), y, entry.base, limit, radius, (x(1) - x(0)) / (two ? 2 : 1));
  }
}

function drawLoss(svg, loss, x, y, base, limit, radius, room) {
  const group = svg.appendChild(make("g", { class: "loss" }));
  const add = (tag, attributes) => group.appendChild(make(tag, attributes));
  const colour = data.colours.units[loss.unit];
  const look = { fill: loss.taken ? "#fff" : colour, stroke: colour, "stroke-width": 1.6 };
  const r = radius;
  if (loss.ppl === null) {
    add("path", { d: `M${x - r},${EDGE.top}l${2 * r},${2 * r}m0,${-2 * r}l${-2 * r},${2 * r}`, ...look });
  } else {
    const top = y(Math.min(loss.ppl, limit));
    add("line", { x1: x, x2: x, y1: y(base), y2: top, stroke: colour, "stroke-width": 1.6 });
    if (loss.ppl > limit) add("path", { d: `M${x - r},${top + r}h${2 * r}l${-r},${-2 * r}z`, ...look });
    else if (loss.unit.startsWith("attn")) add("circle", { cx: x, cy: top, r, ...look });
    else add("rect", { x: x - r * 0.9, y: top - r * 0.9, width: r * 1.8, height: r * 1.8, ...look });
  }
  const area = { x: x - room / 2, y: EDGE.top, width: room, height: y(base) - EDGE.top + 8 };
  add("rect", { ...area, fill: "transparent" });
  group.addEventListener("pointermove", (event) => showTip(event, lossText(loss)));
  group.addEventListener("pointerleave", hideTip);
}

function lossText(loss) {
  const kind = KINDS[loss.unit.split("_")[0]];
  const what = loss.unit.endsWith("_width") ? `the first cut of the ${kind}` : `the ${kind} block`;
  const taken = loss.taken ? "\nthe run took from it" : "";
  return `layer ${loss.layer}, without ${what}\nperplexity ${loss.text}${taken}`;
}

// --- all --------------------------------------------------------------------------------------

function drawAll() {
  cursors.length = 0;
  document.querySelectorAll(".curve").forEach(drawCurve);
  document.querySelectorAll(".sensitivity").forEach(drawSensitivity);
  showState();
}

redrawWhenResized(drawAll);
document.getElementById("scrub")?.addEventListener("input", showState);
document.querySelectorAll("#steps").forEach(makeSortable);
drawAll();
document.documentElement.dataset.drawn = "yes";
