// Node's own parser and matcher of crontabs. In comes a JSON object a line: {"text": …, "times": […]}; out comes, a
// line each, what it made of the text, and which of the times (digests as Node has them) each item matches.
import { createInterface } from "node:readline";

const { parseCrontab } = await import(process.env.GRAPHILE_WORKER_PACKAGE);

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { text, times = [] } = JSON.parse(line);
    const items = parseCrontab(text);
    answer = {
      items: items.map((item) => ({ ...item, match: item.match.parsedCronMatch })),
      matches: items.map((item) => times.map((time) => item.match(time))),
    };
  } catch (error) {
    answer = { error: error.message };
  }
  console.log(JSON.stringify(answer));
}
