/** The record and play-a-file buttons: start a job by REST, follow it, show what came of it. */

import type { Room } from '../../src/index';
import { button, element, onClick } from './dom';
import type { RecordingInfo, RoomApi } from './rest';
import { note, tellError } from './toasts';

const POLL_MS = 1_000;
const COMPLETE_TIMEOUT_MS = 60_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Connects the record button. */
export function startRecordButton(room: Room, api: RoomApi): void {
  const record = button('toggle-recording');
  const badge = element('recording-badge', HTMLSpanElement);
  let ownId = '';

  const refresh = (): void => {
    const isActive = room.recordings.size > 0;
    badge.hidden = !isActive;
    record.setAttribute('aria-pressed', String(isActive || ownId !== ''));
    record.textContent = isActive || ownId ? 'Stop recording' : 'Record';
  };
  room.on('recordingChanged', refresh);
  refresh();

  onClick(
    record,
    async () => {
      const running = ownId || [...room.recordings][0];
      if (running) {
        ownId = '';
        await api.stopRecording(running);
        note('The recording is being completed', 'It plays here in a moment.');
        showRecording(await whenComplete(api, running), api);
      } else {
        ownId = (await api.startRecording()).id;
      }
      refresh();
    },
    (error) => {
      ownId = '';
      refresh();
      tellError(error);
    },
  );
}

async function whenComplete(api: RoomApi, id: string): Promise<RecordingInfo> {
  const deadline = Date.now() + COMPLETE_TIMEOUT_MS;
  for (;;) {
    const recording = await api.recording(id);
    if (recording.state === 'complete') return recording;
    if (recording.state === 'failed') throw new Error(`The recording failed: ${recording.error ?? 'unknown reason'}`);
    if (Date.now() > deadline) throw new Error(`The recording is still ${recording.state}; look for it later.`);
    await sleep(POLL_MS);
  }
}

function showRecording(recording: RecordingInfo, api: RoomApi): void {
  const file = recording.files.find(({ content_type }) => content_type.startsWith('video/')) ?? recording.files[0];
  if (!file) throw new Error('The recording has no file: nobody sent anything.');
  const url = api.fileUrl(file.url);
  const video = element('player-video', HTMLVideoElement);
  video.src = url;
  const download = element('player-download', HTMLAnchorElement);
  download.href = url;
  download.download = file.name;
  const seconds = (file.duration_ms / 1000).toFixed(1);
  element('player-note', HTMLParagraphElement).textContent =
    `${file.name}, ${seconds} s, ${(file.size_bytes / 1e6).toFixed(1)} MB`;
  const dialog = element('player', HTMLDialogElement);
  dialog.onclose = () => video.pause();
  dialog.showModal();
  video.play().catch(() => undefined); // the controls are there
}

/** Connects the play-a-file button. */
export function startFileButton(room: Room, api: RoomApi): void {
  const play = button('toggle-file');
  const input = element('file-input', HTMLInputElement);
  let vodId = '';

  const refresh = (): void => {
    play.setAttribute('aria-pressed', String(vodId !== ''));
    play.textContent = vodId ? 'Stop the file' : 'Play a file';
  };
  refresh();

  const follow = async (id: string): Promise<void> => {
    while (vodId === id && room.state !== 'disconnected') {
      const vod = await api.vod(id);
      if (vod.state === 'failed') throw new Error(`The file cannot be played: ${vod.error ?? 'unknown reason'}`);
      if (vod.state === 'ended') break;
      await sleep(POLL_MS);
    }
    if (vodId === id) vodId = '';
    refresh();
  };

  const failed = (error: unknown): void => {
    vodId = '';
    refresh();
    tellError(error);
  };

  input.onchange = () => {
    const file = input.files?.[0];
    input.value = '';
    if (!file) return;
    note(`Uploading ${file.name}`);
    api.playFile(file).then((vod) => {
      vodId = vod.id;
      refresh();
      return follow(vod.id);
    }).catch(failed);
  };
  onClick(
    play,
    async () => {
      if (!vodId) {
        input.click();
        return;
      }
      const id = vodId;
      vodId = '';
      refresh();
      await api.stopVod(id);
    },
    failed,
  );
}
