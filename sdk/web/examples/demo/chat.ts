/** Text messages beside the grid. */

import type { Room } from '../../src/index';
import { element, make } from './dom';
import { tellError } from './toasts';

const MAX_SHOWN = 500;

/** Connects the chat form and log with a room. */
export function startChat(room: Room): void {
  const log = element('chat-log', HTMLOListElement);
  const input = element('chat-input', HTMLInputElement);
  log.replaceChildren();

  const show = (who: string, text: string, isOwn: boolean): void => {
    const item = make('li', isOwn ? 'own' : '');
    item.append(make('span', 'who', who), make('span', '', text));
    log.append(item);
    while (log.childElementCount > MAX_SHOWN) log.firstElementChild?.remove();
    log.scrollTop = log.scrollHeight;
    if (!isOwn && element('side', HTMLElement).hidden) element('unread', HTMLSpanElement).hidden = false;
  };

  room.on('messageReceived', ({ participant, identity, text, topic }) => {
    if (topic === 'chat' || topic === '') show(participant?.name ?? identity, text, false);
  });
  element('chat-form', HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    input.value = '';
    room.sendMessage(text, { topic: 'chat' }).then(
      () => show('You', text, true),
      (error: unknown) => {
        input.value = text;
        tellError(error);
      },
    );
  };
}
