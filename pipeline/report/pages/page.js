"use strict";
// What the charts of every page are drawn with, from the JSON beside it. Text goes in as text nodes only, so that
// nothing in the data can become markup.

window.addEventListener("error", (event) => {
  document.documentElement.dataset.error = event.message;
});

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = document.getElementById("definitions").namespaceURI;
const tip = document.getElementById("tip");

// --- elements ---------------------------------------------------------------------------------

function make(tag, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

function canvas(holder, width, height) {
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height });
  holder.replaceChildren(svg);
  const add = (tag, attributes, text) => svg.appendChild(make(tag, attributes, text));
  return { svg, add };
}

function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = event.clientX + 16 + width < window.innerWidth;
  const x = right ? event.clientX + 16 : Math.max(4, event.clientX - width - 16);
  const y = Math.min(event.clientY + 14, window.innerHeight - height - 4);
  tip.style.left = `${x}px`;
  tip.style.top = `${Math.max(4, y)}px`;
}

function hideTip() {
  tip.hidden = true;
}

// --- scales -----------------------------------------------------------------------------------

function linear([from, to], [start, end]) {
  return (value) => start + ((value - from) / (to - from || 1)) * (end - start);
}

function logarithmic([from, to], range) {
  const scale = linear([Math.log(from), Math.log(to)], range);
  return (value) => scale(Math.log(value));
}

function linearTicks([from, to], wanted) {
  const rough = (to - from) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) ticks.push(i * step);
  return ticks;
}

function logarithmicTicks([from, to]) {
  const ticks = [];
  const factors = to / from > 1000 ? [1] : [1, 2, 5];
  for (let power = 10 ** Math.floor(Math.log10(from)); power <= to; power *= 10) {
    ticks.push(...factors.map((f) => f * power).filter((tick) => tick >= from && tick <= to));
  }
  return ticks;
}

function tickText(value) {
  return Number(value.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 });
}

function extent(values, spare, isLogarithmic) {
  const from = Math.min(...values);
  const to = Math.max(...values);
  if (isLogarithmic) return [from * (from / to) ** spare, to * (to / from) ** spare];
  const room = (to - from || Math.abs(to) || 1) * spare;
  return [from - room, to + room];
}

// --- axes and marks ---------------------------------------------------------------------------

const EDGE = { left: 54, right: 14, top: 8, bottom: 36 };

function drawAxes(add, x, y, xTicks, yTicks, width, height) {
  const bottom = height - EDGE.bottom;
  for (const tick of yTicks) {
    add("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick), stroke: "#94a3b8", "stroke-opacity": 0.3 });
    add("text", { x: EDGE.left - 8, y: y(tick) + 4, "text-anchor": "end" }, tickText(tick));
  }
  for (const tick of xTicks) add("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, tickText(tick));
  add("line", { x1: EDGE.left, x2: width - EDGE.right, y1: bottom, y2: bottom, stroke: "#94a3b8" });
}

function drawLevel(add, x1, x2, y) {
  add("line", { class: "level", x1, x2, y1: y, y2: y, stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "5 4" });
}

function drawMark(add, square, x, y, radius, colour) {
  const look = { class: "mark", fill: colour, stroke: "#fff", "stroke-width": radius > 2 ? 1 : 0 };
  if (square) return add("rect", { ...look, x: x - radius, y: y - radius, width: 2 * radius, height: 2 * radius });
  return add("circle", { ...look, cx: x, cy: y, r: radius });
}

// A block that lost something is never said to be whole, nor one that is left to be gone.
function percentOf(share) {
  return Math.min(99, Math.max(1, Math.round(share * 100)));
}

// --- tables that can be sorted ----------------------------------------------------------------

function inOrder(one, other) {
  if (Number.isNaN(Number(one)) || Number.isNaN(Number(other))) return one.localeCompare(other);
  return Number(one) - Number(other);
}

function sortBy(table, header, index) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const key = (row) => row.cells[index].dataset.sort;
  const rows = [...body.rows].sort((one, other) => {
    if (key(one) === "" || key(other) === "") return (key(one) === "") - (key(other) === "");
    return inOrder(key(one), key(other)) * (descending ? -1 : 1);
  });
  body.append(...rows);
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((header, index) => {
    header.querySelector("button").addEventListener("click", () => sortBy(table, header, index));
  });
}

function redrawWhenResized(drawAll) {
  let drawnWidth = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === drawnWidth) return;
    drawnWidth = window.innerWidth;
    window.requestAnimationFrame(drawAll);
  });
}
