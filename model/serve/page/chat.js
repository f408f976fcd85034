import { h } from "./dom.js";

export const room = {
  id: "chat",
  title: "Chat",
  mount(root, api) {
    root.append(h("h1", {}, "Chat"));
  },
};
