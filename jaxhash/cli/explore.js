"use strict";

// Items are numbered by their place in the order of (code, id), in which explore.py writes them into the page: of
// several at one distance, the one with the lower number comes first.
(() => {
  const TILES = 60;
  const GROUPS = 20;

  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const codes = new Uint32Array(decode(data.codes).buffer);
  const ids = new Int32Array(decode(data.ids).buffer);
  const sizes = decode(data.sizes); // width and height of each picture, 0 where there is none
  const { bits, names } = data;
  const count = ids.length;
  const words = codes.length / count;
  const inOrderOfIds = Array.from(ids.keys()).sort((a, b) => ids[a] - ids[b]);
  const sheets = Array.from(document.querySelectorAll(".sheet"));
  const state = { item: inOrderOfIds[0], other: null, mode: "k", k: 10, radius: 2, reach: 0, view: "near" };

  function decode(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  // The number of ones in 32 bits: sums of 2, 4 and 8 bits, and then of the four bytes by one multiplication.
  function popcount(word) {
    const pairs = word - ((word >>> 1) & 0x55555555);
    const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
    return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  }

  function distance(a, b) {
    let sum = 0;
    for (let word = 0; word < words; word++) sum += popcount(codes[a * words + word] ^ codes[b * words + word]);
    return sum;
  }

  function isSet(item, bit) {
    return (codes[item * words + (bit >>> 5)] >>> (31 - (bit & 31))) & 1;
  }

  // All items by (distance, number), counted into place.
  function rank(item) {
    const distances = new Uint16Array(count);
    const starts = new Uint32Array(bits + 2);
    for (let other = 0; other < count; other++) starts[(distances[other] = distance(item, other)) + 1]++;
    for (let found = 0; found <= bits; found++) starts[found + 1] += starts[found];
    const within = starts.slice(1); // how many items lie within each radius
    const order = new Uint32Array(count);
    for (let other = 0; other < count; other++) order[starts[distances[other]]++] = other;
    return { distances, order, within };
  }

  // Items connected by steps of at most `radius` bits, the largest group first, groups of one size by their first ids.
  function group(radius) {
    const roots = Uint32Array.from(ids.keys());
    const rootOf = (item) => {
      while (roots[item] !== item) item = roots[item] = roots[roots[item]];
      return item;
    };
    const firsts = []; // of equal codes, which follow each other
    for (let item = 0; item < count; item++) {
      if (item > 0 && distance(item, item - 1) === 0) roots[item] = rootOf(item - 1);
      else firsts.push(item);
    }
    for (let a = 0; radius > 0 && a < firsts.length; a++) {
      for (let b = 0; b < a; b++) {
        if (distance(firsts[a], firsts[b]) <= radius) roots[rootOf(firsts[a])] = rootOf(firsts[b]);
      }
    }
    const groups = new Map();
    for (const item of inOrderOfIds) {
      const root = rootOf(item);
      if (groups.has(root)) groups.get(root).push(item);
      else groups.set(root, [item]);
    }
    // Stable: the groups came in the order of their first ids.
    return Array.from(groups.values()).filter((members) => members.length > 1).sort((a, b) => b.length - a.length);
  }

  function make(tag, className, text = "") {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  }

  function makePicture(item) {
    const [width, height] = [sizes[2 * item], sizes[2 * item + 1]];
    if (!width) return make("span", "picture absent", "no picture");
    const picture = make("canvas", "picture");
    [picture.width, picture.height] = [width, height];
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", names[item]);
    const place = item % data.perSheet;
    const left = (place % data.columns) * data.cell;
    const top = Math.floor(place / data.columns) * data.cell;
    const sheet = sheets[Math.floor(item / data.perSheet)];
    picture.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, width, height);
    return picture;
  }

  function makeTile(item, note = "") {
    const tile = make("button", item === state.item ? "tile itself" : "tile");
    tile.type = "button";
    tile.dataset.item = item;
    tile.dataset.id = ids[item];
    tile.title = names[item];
    if (data.cell) tile.append(makePicture(item));
    tile.append(make("span", "note name", names[item]));
    if (note) tile.append(make("span", "note", note));
    return tile;
  }

  // Fills an element with what `makeOne` makes of 0, 1, ..., some at a time; a button shows the next ones.
  function fill(element, total, step, makeOne) {
    const more = make("button", "more");
    more.type = "button";
    let shown = 0;
    const add = () => {
      const first = shown;
      for (const end = Math.min(total, shown + step); shown < end; shown++) more.before(makeOne(shown));
      more.textContent = `Show ${Math.min(step, total - shown)} more of ${total - shown}`;
      more.hidden = shown === total;
      if (first > 0) (element.children[first].querySelector("button") || element.children[first]).focus();
    };
    element.replaceChildren(more);
    more.addEventListener("click", add);
    add();
  }

  function fillTiles(element, items, noteOf = () => "") {
    element.className = "grid";
    fill(element, items.length, TILES, (place) => makeTile(items[place], noteOf(items[place])));
  }

  const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  function showNear() {
    const { distances, order, within } = rank(state.item);
    const found = order.subarray(0, state.mode === "k" ? state.k : within[state.radius]);
    byId("status").textContent = `${plural(found.length, "item")}, the farthest at a distance of ${plural(
      distances[found[found.length - 1]], "bit")}; ${plural(within[0], "item")} on its code.`;
    fillTiles(byId("list"), found, (item) => (item === state.item ? "itself" : plural(distances[item], "bit")));
    if (state.other === null) showBits(found.find((item) => item !== state.item) ?? state.item);
  }

  function showAll() {
    const wanted = byId("name").value.trim().toLowerCase();
    const found = inOrderOfIds.filter((item) => names[item].toLowerCase().includes(wanted));
    byId("status").textContent = plural(found.length, "item") + (wanted ? ` with “${wanted}” in the name.` : ".");
    fillTiles(byId("list"), found);
  }

  function showDuplicates() {
    const groups = group(state.reach);
    const grouped = groups.reduce((sum, members) => sum + members.length, 0);
    byId("status").textContent = `${plural(groups.length, "group")}, with ${plural(grouped, "item")} of ${count}.`;
    byId("list").className = "";
    fill(byId("list"), groups.length, GROUPS, (place) => {
      const [section, grid] = [make("section", "group"), make("div", "grid")];
      section.append(make("h2", "", plural(groups[place].length, "item")), grid);
      fillTiles(grid, groups[place]);
      return section;
    });
  }

  function showChosen() {
    byId("chosen").replaceChildren(makeLine(state.item));
  }

  // The bits of the chosen item above those of another; without one, of the nearest that is shown.
  function showBits(other) {
    const differing = [];
    const strip = make("div", "bits");
    for (let bit = 0; bit < bits; bit++) {
      if (bit % 8 === 0) strip.append(make("span", "byte"));
      const pair = [isSet(state.item, bit), isSet(other, bit)];
      if (pair[0] !== pair[1]) differing.push(bit);
      const differs = pair[0] === pair[1] ? "" : " differs";
      for (const one of pair) strip.lastChild.append(make("span", `bit${one ? " one" : ""}${differs}`));
    }
    strip.setAttribute("role", "img");
    strip.setAttribute("aria-label", differing.length ? `They differ in bits ${differing.join(", ")}` : "Equal bits");
    const result = `${plural(differing.length, "bit")} of ${bits} differ${differing.length === 1 ? "s" : ""}.`;
    byId("compared").replaceChildren(makeLine(state.item), strip, makeLine(other), make("p", "", result));
  }

  function makeLine(item) {
    const line = make("div", "line");
    if (data.cell) line.append(makePicture(item));
    line.append(make("span", "", names[item]));
    return line;
  }

  function show() {
    for (const name of ["k", "radius"]) byId(name).value = state[name];
    byId("k-value").textContent = state.k;
    byId("radius-value").textContent = plural(state.radius, "bit");
    byId("reach-value").textContent = plural(state.reach, "bit");
    byId("reach").hidden = state.view !== "duplicates";
    for (const radio of document.getElementsByName("mode")) radio.checked = radio.value === state.mode;
    for (const button of document.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", button.dataset.view === state.view);
    }
    ({ near: showNear, all: showAll, duplicates: showDuplicates })[state.view]();
  }

  function choose(item) {
    Object.assign(state, { item, other: null, view: "near" });
    showChosen();
    show();
    byId("status").focus({ preventScroll: true }); // the button that was clicked is gone
    scrollTo(0, 0);
  }

  function compare(item) {
    state.other = item;
    byId("comparison").open = true;
    showBits(item);
    byId("comparison").scrollIntoView({ block: "nearest" });
  }

  function clickTile(item) {
    if (document.querySelector('[name="click"]:checked').value === "compare") compare(item);
    else choose(item);
  }

  function listen() {
    const change = (changes) => {
      Object.assign(state, changes);
      show();
    };
    byId("list").addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) clickTile(Number(tile.dataset.item));
    });
    byId("random").addEventListener("click", () => choose(Math.floor(Math.random() * count)));
    byId("name").addEventListener("input", () => change({ view: "all" }));
    byId("name").addEventListener("keydown", (event) => {
      const first = byId("list").querySelector(".tile");
      if (event.key === "Enter" && state.view === "all" && first) choose(Number(first.dataset.item));
    });
    for (const mode of ["k", "radius"]) {
      const slide = (event) => change({ mode, [mode]: Number(event.target.value), view: "near" });
      byId(mode).addEventListener("input", slide);
    }
    for (const radio of document.getElementsByName("mode")) {
      radio.addEventListener("change", () => change({ mode: radio.value, view: "near" }));
    }
    for (const button of document.querySelectorAll("[data-view]")) {
      button.addEventListener("click", () => change({ view: button.dataset.view }));
    }
    // Not while it is dragged: all pairs of codes are compared.
    byId("reach-radius").addEventListener("change", (event) => change({ reach: Number(event.target.value) }));
  }

  async function start() {
    await Promise.all(sheets.map((sheet) => sheet.decode()));
    byId("k").max = Math.min(100, count);
    for (const slider of ["radius", "reach-radius"]) byId(slider).max = bits;
    state.k = Math.min(state.k, count);
    state.radius = Math.min(state.radius, bits);
    byId("explore").classList.toggle("pixelated", data.cell <= 32);
    byId("comparison").open = matchMedia("(min-width: 52rem)").matches;
    byId("explore").hidden = false;
    listen();
    showChosen();
    show();
  }

  start();
})();
