/** The demo page: a lobby, then a call. Everything it does goes through the SDK's public surface and the REST API. */

import type { LocalTrack, Reason } from '../../src/index';
import { Room, CAPTURE_DEFAULTS, captureCamera, captureMicrophone } from '../../src/index';
import { startChat } from './chat';
import { button, element, onClick } from './dom';
import { Grid, showMembers } from './grid';
import { startFileButton, startRecordButton } from './media-jobs';
import { startReactions } from './reactions';
import { RoomApi, demoToken } from './rest';
import { note, tellError } from './toasts';

const REASONS: Partial<Record<Reason, string>> = {
  removed: 'You were removed from the room.',
  duplicate_identity: 'You joined again from another place.',
  room_closed: 'The room was closed.',
  connection_lost: 'The connection was lost for too long. Join again.',
  server_shutdown: 'The server went away. Join again.',
};

const lobby = element('lobby', HTMLElement);
const call = element('call', HTMLDivElement);
const preview = element('preview', HTMLVideoElement);
const withCamera = element('with-camera', HTMLInputElement);
const withMicrophone = element('with-microphone', HTMLInputElement);
const roomName = element('room-name', HTMLInputElement);
const personName = element('person-name', HTMLInputElement);

let previewTrack: LocalTrack | undefined;
let room: Room | undefined;

/** Names are remembered; a room in the address is a shareable link. */
function fillLobby(): void {
  const query = new URLSearchParams(location.search);
  roomName.value = query.get('room') ?? 'lobby';
  personName.value = query.get('name') ?? sessionStorage.getItem('name') ?? `Guest ${100 + Math.floor(Math.random() * 900)}`;
}

async function showPreview(): Promise<void> {
  previewTrack?.stop();
  previewTrack = undefined;
  preview.srcObject = null;
  if (!withCamera.checked) return;
  try {
    previewTrack = await captureCamera(CAPTURE_DEFAULTS, true);
    preview.srcObject = new MediaStream([previewTrack.mediaStreamTrack]);
  } catch (error) {
    withCamera.checked = false;
    tellError(error);
  }
}

async function localTracks(): Promise<LocalTrack[]> {
  const tracks: LocalTrack[] = [];
  if (withMicrophone.checked) {
    try {
      tracks.push(await captureMicrophone(CAPTURE_DEFAULTS));
    } catch (error) {
      tellError(error); // joining to watch is better than not joining
    }
  }
  if (withCamera.checked && previewTrack) tracks.push(previewTrack);
  return tracks;
}

async function join(): Promise<void> {
  const name = personName.value.trim();
  sessionStorage.setItem('name', name);
  const [token, tracks] = await Promise.all([
    demoToken(roomName.value.trim(), `${slug(name)}-${crypto.randomUUID().slice(0, 8)}`, name),
    localTracks(),
  ]);
  const joining = new Room({ statsIntervalMs: 1000, clientInfo: 'mrtc-demo/0.1.0' });
  const grid = new Grid(joining);
  follow(joining);
  try {
    await joining.connect(location.origin, token.token, { room: roomName.value.trim(), name, tracks });
  } catch (error) {
    for (const track of tracks) if (track !== previewTrack) track.stop();
    throw error;
  }
  room = joining;
  previewTrack = undefined; // it belongs to the room now
  const api = new RoomApi(token, joining.name);
  lobby.hidden = true;
  call.hidden = false;
  element('call-room', HTMLSpanElement).textContent = joining.name;
  history.replaceState(null, '', `?${new URLSearchParams({ room: joining.name }).toString()}`);
  grid.start();
  startChat(joining);
  startReactions(joining, grid);
  startRecordButton(joining, api);
  startFileButton(joining, api);
  bindCall(joining, grid);
}

/** Keeps badge, members and buttons true. */
function follow(joining: Room): void {
  const badge = element('connection-badge', HTMLSpanElement);
  joining.on('connectionStateChanged', (state) => {
    badge.dataset['state'] = state;
    badge.textContent = state === 'connected' ? 'Connected' : state === 'reconnecting' ? 'Reconnecting …' : state;
  });
  const refresh = (): void => {
    showMembers(joining);
    showButtons(joining);
  };
  for (const event of [
    'participantJoined', 'participantLeft', 'participantUpdated', 'publicationAdded', 'publicationRemoved',
    'trackMuted', 'trackUnmuted', 'localPublished', 'localUnpublished',
  ] as const) joining.on(event, refresh);
  joining.on('connectionStateChanged', refresh);
  joining.on('participantJoined', ({ name }) => note(`${name} joined`));
  joining.on('participantLeft', ({ name }) => note(`${name} left`));
  joining.on('mediaLost', (message) => note('Media is interrupted', `${message}; it is being restored.`));
  joining.on('mediaRestored', () => note('Media is back'));
  joining.on('trackSubscriptionFailed', (_, error) => tellError(error));
  joining.on('audioPlaybackBlocked', () => (button('start-audio').hidden = false));
  joining.on('disconnected', (reason) => ended(reason));
}

function ended(reason: Reason): void {
  room = undefined;
  call.hidden = true;
  lobby.hidden = false;
  const text = REASONS[reason];
  if (text) note('The call is over', text, 'error');
  void showPreview();
}

function showButtons({ localParticipant: self }: Room): void {
  press('toggle-microphone', self.isMicrophoneEnabled, 'Mute', 'Unmute');
  press('toggle-camera', self.isCameraEnabled, 'Camera off', 'Camera on');
  press('toggle-screen', self.isScreenShareEnabled, 'Stop sharing', 'Share screen');
}

function press(id: string, isOn: boolean, onText: string, offText: string): void {
  const target = button(id);
  target.setAttribute('aria-pressed', String(isOn));
  target.textContent = isOn ? onText : offText;
}

function bindCall(joined: Room, grid: Grid): void {
  const self = joined.localParticipant;
  grid.hasFigures = button('toggle-stats').getAttribute('aria-pressed') === 'true';
  actions = {
    'toggle-microphone': () => self.setMicrophoneEnabled(!self.isMicrophoneEnabled),
    'toggle-camera': () => self.setCameraEnabled(!self.isCameraEnabled),
    'toggle-screen': () => self.setScreenShareEnabled(!self.isScreenShareEnabled),
    'toggle-stats': () => {
      const isOn = button('toggle-stats').getAttribute('aria-pressed') !== 'true';
      button('toggle-stats').setAttribute('aria-pressed', String(isOn));
      grid.hasFigures = isOn;
    },
    leave: () => joined.disconnect(),
    'start-audio': async () => {
      await joined.startAudio();
      button('start-audio').hidden = true;
    },
  };
  // For people at the console and for the tests of this page.
  Object.assign(globalThis, { mrtcRoom: joined });
}

/** What the buttons do in the present call. */
let actions: Record<string, () => Promise<void> | void> = {};
for (const id of ['toggle-microphone', 'toggle-camera', 'toggle-screen', 'toggle-stats', 'leave', 'start-audio']) {
  onClick(button(id), () => actions[id]?.(), tellError);
}

onClick(
  button('toggle-side'),
  () => {
    const side = element('side', HTMLElement);
    side.hidden = !side.hidden;
    button('toggle-side').setAttribute('aria-expanded', String(!side.hidden));
    element('unread', HTMLSpanElement).hidden = true;
    if (!side.hidden) element('chat-input', HTMLInputElement).focus();
  },
  tellError,
);

element('join-form', HTMLFormElement).onsubmit = (event) => {
  event.preventDefault();
  const submit = button('join-button');
  submit.disabled = true;
  submit.textContent = 'Joining …';
  join()
    .catch(tellError)
    .finally(() => {
      submit.disabled = false;
      submit.textContent = 'Join';
    });
};
withCamera.onchange = () => void showPreview();

/** Keys as in other call pages; not while typing. */
document.addEventListener('keydown', (event) => {
  if (!room || event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
  const id = { m: 'toggle-microphone', v: 'toggle-camera', s: 'toggle-screen' }[event.key];
  if (id) button(id).click();
});

function slug(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '').slice(0, 24) || 'guest';
}

fillLobby();
void showPreview();
