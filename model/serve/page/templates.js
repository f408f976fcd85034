/* Prompts to begin with: texts that a base model continues, examples before a question (few-shot), and an assistant made by a prompt alone. */

/** What a newcomer may ask first. */
export const IDEAS = ["Who are you?", "What is 12 times 7?", "Tell me about a book."];

export const STOP_TURN = "\n"; // a turn is a line
const ASSISTANT = "This is a conversation between a person and a helpful, honest assistant. The assistant answers briefly.";

/** A conversation as a text that a base model continues with the assistant's next turn. */
export function promptOf(messages) {
  const system = messages.filter((message) => message.role === "system").map((message) => message.content);
  const speakers = { user: "Person", assistant: "Assistant" };
  const turns = messages
    .filter((message) => message.role in speakers)
    .map((message) => `${speakers[message.role]}: ${message.content.replace(/\s*\n\s*/g, " ")}`);
  return `${[ASSISTANT, ...system].join(" ")}\n\n${turns.join("\n")}\nAssistant:`;
}

/** Each a name, a prompt, and the texts at which a completion stops. */
export const TEMPLATES = [
  { name: "A text to continue", prompt: "The town lies at the mouth of the river, and its harbour", stop: [] },
  {
    name: "An assistant by prompting",
    prompt: promptOf([
      { role: "user", content: "How many days does a week have?" },
      { role: "assistant", content: "A week has seven days." },
      { role: "user", content: "Who are you?" },
    ]),
    stop: [STOP_TURN],
  },
  {
    name: "Few-shot: questions and answers",
    prompt: "Q: What colour is the sky?\nA: The sky is blue.\n\nQ: How many legs has a spider?\nA: A spider has eight legs.\n\nQ: What do bees make?\nA:",
    stop: ["\n"],
  },
  {
    name: "Few-shot: good or bad",
    prompt: "Review: I loved every page.\nOpinion: good\n\nReview: Dull from beginning to end.\nOpinion: bad\n\nReview: The best evening of the year.\nOpinion:",
    stop: ["\n"],
  },
  { name: "Few-shot: sums", prompt: "2 + 3 = 5\n4 + 4 = 8\n6 + 1 = 7\n5 + 4 =", stop: ["\n"] },
];
