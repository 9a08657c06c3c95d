//! What the workers tell the application: events and frames, through two bounded queues and one eventfd.
//!
//! A worker never waits here. Replies are bounded by the commands in flight. State that repeats is coalesced, the newest
//! wins. What is left is bounded; beyond the bound it is dropped and counted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mrtc_core::event::{Event, SinkFrame};
use mrtc_core::id::{RoomId, ShardIndex, SinkId, TrackId, TransportId};

use crate::eventfd_linux::EventFd;

/// Events that wait, replies not counted. An application that is so far behind has lost the picture anyway.
const MAX_EVENTS: usize = 65_536;
/// Frames that wait: 10 s of 20 sinks.
const MAX_FRAMES: usize = 16_384;
/// Bytes of frames that wait.
const MAX_FRAME_BYTES: usize = 128 * 1024 * 1024;

/// State of which only the newest value matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum StateKey {
    Speakers(RoomId, ShardIndex),
    Slots(TransportId),
    Layers(TrackId),
    Keyframe(TrackId),
}

fn state_key(event: &Event) -> Option<StateKey> {
    match event {
        Event::ActiveSpeakers { room, shard, .. } => Some(StateKey::Speakers(room.clone(), *shard)),
        Event::SlotsChanged { transport, .. } => Some(StateKey::Slots(transport.clone())),
        Event::LayersWanted { track, .. } => Some(StateKey::Layers(track.clone())),
        Event::KeyframeRequested { track } => Some(StateKey::Keyframe(track.clone())),
        _ => None,
    }
}

#[derive(Debug)]
enum Queued {
    Event(Event),
    /// The value is in `latest`.
    State(StateKey),
}

#[derive(Debug, Default)]
struct Queues {
    events: VecDeque<Queued>,
    replies: usize,
    latest: HashMap<StateKey, Event>,
    frames: VecDeque<SinkFrame>,
    frame_bytes: usize,
    /// Sinks that lost a frame here and have not had one since.
    torn: HashSet<SinkId>,
    dropped_events: u64,
    dropped_frames: u64,
}

/// The queues, shared by all workers and the application.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queues: Mutex<Queues>,
    wake: EventFd,
}

impl Outgoing {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { queues: Mutex::default(), wake: EventFd::new()? })
    }

    pub(crate) fn push(&self, events: &mut Vec<Event>, frames: &mut Vec<SinkFrame>) {
        if events.is_empty() && frames.is_empty() {
            return;
        }
        let mut queues = self.lock();
        events.drain(..).for_each(|event| queues.push_event(event));
        frames.drain(..).for_each(|frame| queues.push_frame(frame));
        drop(queues);
        self.wake.signal();
    }

    pub(crate) fn poll_events(&self, limit: usize) -> Vec<Event> {
        self.poll(|queues| queues.take_events(limit))
    }

    pub(crate) fn poll_frames(&self, limit: usize) -> Vec<SinkFrame> {
        self.poll(|queues| queues.take_frames(limit))
    }

    /// Wakes the application though nothing waits.
    pub(crate) fn wake(&self) {
        self.wake.signal();
    }

    /// (events, frames) dropped so far.
    pub(crate) fn dropped(&self) -> (u64, u64) {
        let queues = self.lock();
        (queues.dropped_events, queues.dropped_frames)
    }

    fn poll<T>(&self, take: impl FnOnce(&mut Queues) -> T) -> T {
        self.wake.clear();
        let mut queues = self.lock();
        let taken = take(&mut queues);
        let has_more = !queues.events.is_empty() || !queues.frames.is_empty();
        drop(queues);
        if has_more {
            self.wake.signal();
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRawFd for Outgoing {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

impl Queues {
    fn push_event(&mut self, event: Event) {
        let is_reply = matches!(event, Event::Reply { .. });
        if let Some(key) = state_key(&event) {
            if let Some(waiting) = self.latest.get_mut(&key) {
                *waiting = event;
                return;
            }
            if self.has_room() {
                self.latest.insert(key.clone(), event);
                self.events.push_back(Queued::State(key));
            }
            return;
        }
        if is_reply {
            self.replies += 1;
            self.events.push_back(Queued::Event(event));
        } else if self.has_room() {
            self.events.push_back(Queued::Event(event));
        }
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.events.len() - self.replies < MAX_EVENTS;
        self.dropped_events += u64::from(!has_room);
        has_room
    }

    fn take_events(&mut self, limit: usize) -> Vec<Event> {
        let count = limit.min(self.events.len());
        let mut taken = Vec::with_capacity(count);
        for queued in self.events.drain(..count) {
            match queued {
                Queued::Event(event) => {
                    self.replies -= usize::from(matches!(event, Event::Reply { .. }));
                    taken.push(event);
                }
                Queued::State(key) => taken.extend(self.latest.remove(&key)),
            }
        }
        taken
    }

    fn push_frame(&mut self, mut frame: SinkFrame) {
        if self.frames.len() >= MAX_FRAMES || self.frame_bytes + frame.data.len() > MAX_FRAME_BYTES {
            self.dropped_frames += 1;
            self.torn.insert(frame.sink);
            return;
        }
        frame.is_discontinuous |= self.torn.remove(&frame.sink);
        self.frame_bytes += frame.data.len();
        self.frames.push_back(frame);
    }

    fn take_frames(&mut self, limit: usize) -> Vec<SinkFrame> {
        let count = limit.min(self.frames.len());
        let taken: Vec<SinkFrame> = self.frames.drain(..count).collect();
        self.frame_bytes -= taken.iter().map(|frame| frame.data.len()).sum::<usize>();
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mrtc_core::command::Codec;
    use mrtc_core::event::Reply;
    use mrtc_core::id::CommandId;

    use super::*;
    use crate::poll_linux::wait_readable;

    fn speakers(room: &str, level: u8) -> Event {
        Event::ActiveSpeakers { room: room.into(), shard: ShardIndex(0), speakers: vec![("t".into(), level)] }
    }

    fn ended(n: usize) -> Event {
        Event::TrackEnded { track: n.to_string().into() }
    }

    fn frame(sink: &str) -> SinkFrame {
        SinkFrame {
            sink: sink.into(),
            codec: Codec::Vp8,
            is_keyframe: false,
            is_discontinuous: false,
            rtp_time: 0,
            captured_at_us: 0,
            data: vec![1],
        }
    }

    fn is_readable(outgoing: &Outgoing) -> bool {
        wait_readable([outgoing.as_raw_fd()], Duration::ZERO).unwrap() == [true]
    }

    #[test]
    fn state_is_coalesced_and_keeps_its_place() {
        let outgoing = Outgoing::new().unwrap();
        let mut events = vec![speakers("a", 1), ended(1), speakers("b", 2), speakers("a", 9)];
        outgoing.push(&mut events, &mut vec![]);
        let got = outgoing.poll_events(10);
        let [Event::ActiveSpeakers { speakers, .. }, Event::TrackEnded { .. }, Event::ActiveSpeakers { room, .. }] =
            &got[..]
        else {
            panic!("{got:?}")
        };
        assert_eq!((speakers[0].1, room.as_str()), (9, "b"));
    }

    #[test]
    fn replies_are_never_dropped() {
        let outgoing = Outgoing::new().unwrap();
        let mut events: Vec<Event> = (0..MAX_EVENTS + 5).map(ended).collect();
        events.push(Event::Reply { command: CommandId(7), result: Ok(Reply::Done) });
        outgoing.push(&mut events, &mut vec![]);
        assert_eq!(outgoing.dropped(), (5, 0));
        let got = outgoing.poll_events(usize::MAX);
        assert!(matches!(got.last(), Some(Event::Reply { command: CommandId(7), .. })));
        assert_eq!(got.len(), MAX_EVENTS + 1);
    }

    #[test]
    fn lost_frames_are_counted_and_the_next_one_says_so() {
        let outgoing = Outgoing::new().unwrap();
        let mut frames: Vec<SinkFrame> = (0..MAX_FRAMES + 2).map(|_| frame("s")).collect();
        outgoing.push(&mut vec![], &mut frames);
        assert_eq!(outgoing.dropped(), (0, 2));
        assert_eq!(outgoing.poll_frames(usize::MAX).len(), MAX_FRAMES);
        outgoing.push(&mut vec![], &mut vec![frame("other"), frame("s"), frame("s")]);
        let flags: Vec<bool> = outgoing.poll_frames(10).iter().map(|f| f.is_discontinuous).collect();
        assert_eq!(flags, [false, true, false]);
    }

    #[test]
    fn the_descriptor_is_readable_while_anything_waits() {
        let outgoing = Outgoing::new().unwrap();
        assert!(!is_readable(&outgoing));
        outgoing.push(&mut vec![ended(1), ended(2)], &mut vec![frame("s")]);
        assert!(is_readable(&outgoing));
        outgoing.poll_events(1);
        assert!(is_readable(&outgoing));
        outgoing.poll_events(10);
        assert!(is_readable(&outgoing), "a frame waits");
        outgoing.poll_frames(10);
        assert!(!is_readable(&outgoing));
    }
}
