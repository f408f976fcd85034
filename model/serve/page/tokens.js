import { h } from "./dom.js";

export const room = {
  id: "tokens",
  title: "Tokens",
  mount(root, api) {
    root.append(h("h1", {}, "Tokens"));
  },
};
