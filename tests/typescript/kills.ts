/** kill -9 of the API's processes in the middle of a stream and of a room. */

import { type StreamEvent } from "promptwire";

import { assemble } from "./events.js";
import { Answer, type Case, check, command, equal, idOf, newUser, signalled, take } from "./stack.js";

const cases: Record<string, Case> = {
  async "nothing is missing and nothing comes twice although the API is killed"(stack) {
    const client = await newUser(stack);
    const joined = signalled<number>();
    let connections = 0;
    const onConnected = (seq: number): void => {
      connections += 1;
      joined.signal(seq);
    };
    const room = take(5, client.listen({ onConnected }));
    await joined.promise;
    const answer = new Answer(stack);
    await answer.append("Before, ");
    const slow = await client.submit(await answer.prompt());
    const ids = [slow.id, (await client.submit("Before", { wait: true })).id];

    const parts: StreamEvent[] = [];
    for await (const event of client.follow(slow.id)) {
      if (parts.push(event) !== 1) continue;
      await command(stack, "kill");
      for (const text of ["Meanwhile", "Then", "Last"]) ids.push((await client.submit(text)).id);
      await answer.append("and after.\n");
    }
    equal(assemble(parts).text, "Before, and after.\ndone");

    const events = await room;
    equal(
      events.map(({ seq }) => seq),
      [1, 2, 3, 4, 5],
    );
    equal(events.map(idOf).sort(), ids.sort());
    check(connections > 1, "the room was joined again");
  },
};
export default cases;
