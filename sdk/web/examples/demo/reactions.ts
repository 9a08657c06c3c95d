/** Signs that float over a tile for a moment: on a topic that may lose, stored nowhere. */

import type { Room } from '../../src/index';
import { element, make, onClick } from './dom';
import type { Grid } from './grid';
import { tellError } from './toasts';

const TOPIC = 'reactions';
const SIGNS = ['👍', '👏', '❤️', '😂', '🎉'];

/** Connects the row of signs with a room. */
export function startReactions(room: Room, grid: Grid): void {
  const buttons = SIGNS.map((sign) => {
    const made = make('button', 'plain', sign);
    made.type = 'button';
    made.setAttribute('aria-label', `React with ${sign}`);
    onClick(
      made,
      async () => {
        await room.publishData(sign, { topic: TOPIC, reliable: false });
        grid.react(room.localParticipant, sign);
      },
      tellError,
    );
    return made;
  });
  element('reactions', HTMLDivElement).replaceChildren(...buttons);
  room.on('dataReceived', ({ topic, participant, text }) => {
    if (topic === TOPIC && participant && text !== undefined && SIGNS.includes(text)) grid.react(participant, text);
  });
}
