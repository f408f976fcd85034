import { h } from "./dom.js";

export const room = {
  id: "arena",
  title: "Arena",
  mount(root, api) {
    root.append(h("h1", {}, "Arena"));
  },
};
