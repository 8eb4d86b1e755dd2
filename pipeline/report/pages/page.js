"use strict";
// What a page does. It draws nothing: every figure is in the page, and this moves and shows parts of it.

window.addEventListener("error", (event) => {
  document.documentElement.dataset.error = event.message;
});

const tip = document.getElementById("tip");

// --- pointing ---------------------------------------------------------------------------------

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

function followPointer(svg) {
  const marks = [...svg.querySelectorAll("[data-x]")];
  const halo = svg.querySelector(".halo");
  svg.addEventListener("pointermove", (event) => {
    const target = marks.length ? nearest(svg, marks, event) : event.target.closest("[data-tip]");
    if (target) showTip(event, target.dataset.tip);
    else hideTip();
    if (halo) moveHalo(halo, target);
  });
  svg.addEventListener("pointerleave", () => {
    hideTip();
    if (halo) halo.parentNode.setAttribute("visibility", "hidden");
  });
}

function nearest(svg, marks, event) {
  const box = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.width / box.width;
  const x = (event.clientX - box.left) * scale;
  const y = (event.clientY - box.top) * scale;
  const alongX = svg.dataset.nearest === "x";
  const distance = ({ dataset }) => Math.hypot(dataset.x - x, alongX ? 0 : dataset.y - y);
  return marks.reduce((best, mark) => (distance(mark) < distance(best) ? mark : best));
}

function moveHalo(halo, { dataset }) {
  halo.setAttribute("cx", dataset.x);
  halo.setAttribute("cy", dataset.y);
  halo.parentNode.setAttribute("visibility", "visible");
}

// --- the slider over the steps ----------------------------------------------------------------

function showStep(slider) {
  const states = JSON.parse(slider.dataset.states);
  const count = Number(slider.value);
  document.getElementById("scrub-text").textContent = states[count].text;
  for (const state of document.querySelectorAll("[data-from]")) {
    const { from, to } = state.dataset;
    const isShown = Number(from) <= count && (to === "" || count < Number(to));
    state.setAttribute("visibility", isShown ? "visible" : "hidden");
    if (isShown) state.parentNode.dataset.tip = state.dataset.tip;
  }
  for (const cursor of document.querySelectorAll(".along-run .cursor")) {
    const x = Number(cursor.dataset.origin) + states[count].ratio * Number(cursor.dataset.perUnit);
    cursor.setAttribute("transform", `translate(${x},0)`);
    cursor.setAttribute("visibility", count < states.length - 1 ? "visible" : "hidden");
  }
}

// --- relative and plain values ----------------------------------------------------------------

function showScale(scale) {
  for (const button of document.querySelectorAll(".scales button")) {
    button.setAttribute("aria-pressed", button.dataset.scale === scale);
  }
  for (const name of ["relative", "absolute"]) {
    for (const figure of document.querySelectorAll(`.scale-${name}`)) figure.hidden = name !== scale;
  }
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

// --- all --------------------------------------------------------------------------------------

document.querySelectorAll(".chart svg").forEach(followPointer);
document.querySelectorAll(".sortable").forEach(makeSortable);
for (const button of document.querySelectorAll(".scales button")) {
  button.addEventListener("click", () => showScale(button.dataset.scale));
}
const slider = document.getElementById("scrub");
if (slider) {
  slider.closest("label").hidden = false;
  slider.addEventListener("input", () => showStep(slider));
  showStep(slider);
}
document.documentElement.dataset.ready = "yes";
