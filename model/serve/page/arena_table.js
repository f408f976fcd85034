/* The table of the arena: Bradley-Terry ratings with their intervals, and Elo ratings after each vote as a drawing. */

import { count, h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, RIGHT, LEFT, EDGE] = [720, 260, 120, 48, 18];

function svg(tag, properties, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The table and the drawing of GET /feedback/arena. */
export function standings({ ratings, elo, names, num_votes: numVotes }) {
  if (!numVotes) return [h("p", { class: "muted" }, "Nobody has voted yet.")];
  const shownName = (model) => names[model] ?? model;
  return [
    ratingsTable(ratings, names),
    h("p", { class: "muted" }, `Bradley-Terry ratings of ${count(numVotes, "vote")}; 400 points are 10 wins for each loss. Intervals hold 95% of resampled ratings.`),
    elo.length > 1 && h("figure", { class: "arena-figure" }, h("figcaption", {}, "Elo after each vote"), h("div", { class: "scroll" }, drawing(elo, shownName))),
  ];
}

function ratingsTable(ratings, names) {
  const head = ["", "Model", "Rating", "95% interval", "Votes"].map((text, column) => h("th", { scope: "col", class: column > 1 ? "number" : "" }, text));
  const rows = ratings.map(({ model, points, low, high, num_votes: votes }, number) =>
    h("tr", {}, h("td", {}, `${number + 1}`), h("td", {}, names[model] ?? model, " ", (names[model] ?? model) !== model && h("small", {}, model)),
      [points.toFixed(0), low === null ? "after 10 votes" : `${low.toFixed(0)} to ${high.toFixed(0)}`, votes].map((value) => h("td", { class: "number" }, `${value}`))),
  );
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}

function drawing(elo, shownName) {
  const last = elo.at(-1);
  const models = Object.keys(last.ratings).sort((a, b) => last.ratings[b] - last.ratings[a]);
  const values = elo.flatMap((point) => Object.values(point.ratings));
  const [low, high] = [Math.min(...values) - 1, Math.max(...values) + 1];
  const x = (votes) => LEFT + ((votes - elo[0].votes) / Math.max(last.votes - elo[0].votes, 1)) * (WIDTH - LEFT - RIGHT);
  const y = (rating) => EDGE + ((high - rating) / (high - low)) * (HEIGHT - 2 * EDGE);
  const label = models.map((model) => `${shownName(model)} ${last.ratings[model].toFixed(0)}`).join(", ");
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "arena-plot", role: "img", "aria-label": `Elo ratings after ${last.votes} votes: ${label}` },
    ...axes(low, high, y, elo[0].votes, last.votes, x),
    ...models.flatMap((model, number) => line(elo, model, number, x, y)),
    ...endLabels(models, last, shownName, x, y),
  );
}

function axes(low, high, y, first, last, x) {
  const rounded = [low, (low + high) / 2, high].map(Math.round);
  const ticks = rounded.flatMap((value) => [
    svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "arena-grid" }),
    svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, `${value}`),
  ]);
  const ends = [[first, "start"], [last, "end"]].map(([votes, anchor]) => svg("text", { x: x(votes), y: HEIGHT - 2, "text-anchor": anchor }, anchor === "end" ? `${votes} votes` : `${votes}`));
  return [...ticks, ...ends];
}

function line(elo, model, number, x, y) {
  const points = elo.filter((point) => model in point.ratings).map((point) => `${x(point.votes).toFixed(1)},${y(point.ratings[model]).toFixed(1)}`);
  return [svg("polyline", { points: points.join(" "), class: `arena-line arena-line${number % 6}` })];
}

/** Names at the ends of the lines, moved apart where they would cover each other. */
function endLabels(models, last, shownName, x, y) {
  let lowest = 0;
  return models.map((model, number) => {
    lowest = Math.max(y(last.ratings[model]) + 4, lowest + 15);
    const name = shownName(model);
    return svg("text", { x: x(last.votes) + 8, y: lowest, class: `arena-name${number % 6}` }, name.length > 16 ? `${name.slice(0, 15)}…` : name);
  });
}
