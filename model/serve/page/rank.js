import { h } from "./dom.js";

export const room = {
  id: "rank",
  title: "Rank",
  mount(root, api) {
    root.append(h("h1", {}, "Rank"));
  },
};
