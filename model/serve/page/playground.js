import { h } from "./dom.js";

export const room = {
  id: "playground",
  title: "Playground",
  mount(root, api) {
    root.append(h("h1", {}, "Playground"));
  },
};
