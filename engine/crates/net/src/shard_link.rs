//! Messages between workers: a bounded inbox each, and one wake for a batch.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mrtc_core::id::ShardIndex;
use mrtc_core::shard_message::ShardMessage;

use crate::eventfd_linux::EventFd;

/// Messages that wait for one worker. A message of packets holds what one flush gave for that worker.
const INBOX: usize = 4_096;
/// What may wait beside a full inbox before data messages are dropped too.
const MAX_WAITING: usize = 1_024;

/// What another worker sees of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    inbox: Sender<(ShardIndex, ShardMessage)>,
    wake: Arc<EventFd>,
}

/// Makes an inbox that wakes its owner by `wake`.
pub(crate) fn inbox(wake: Arc<EventFd>) -> (Peer, Receiver<(ShardIndex, ShardMessage)>) {
    let (inbox, receiver) = bounded(INBOX);
    (Peer { inbox, wake }, receiver)
}

/// The sending side of one worker.
///
/// When an inbox is full packets are dropped and counted, as a network would; everything else waits here in order. That is
/// bounded too, since it is in proportion to the tracks and subscriptions that exist; data messages, which are not, wait only
/// while few do.
#[derive(Debug)]
pub(crate) struct ShardLink {
    own: ShardIndex,
    peers: Vec<Peer>,
    waiting: Vec<VecDeque<ShardMessage>>,
    is_touched: Vec<bool>,
}

impl ShardLink {
    pub(crate) fn new(own: ShardIndex, peers: Vec<Peer>) -> Self {
        let waiting = peers.iter().map(|_| VecDeque::new()).collect();
        let is_touched = vec![false; peers.len()];
        Self { own, peers, waiting, is_touched }
    }

    /// Queues a message; returns the number of messages dropped for it.
    pub(crate) fn send(&mut self, to: ShardIndex, message: ShardMessage) -> u64 {
        let at = usize::from(to.0);
        if at >= self.peers.len() {
            return 1;
        }
        self.retry(at);
        let is_media = match message {
            ShardMessage::Packets(_) => true,
            ShardMessage::Data(_) => self.waiting[at].len() >= MAX_WAITING,
            _ => false,
        };
        if !self.waiting[at].is_empty() {
            return self.keep_or_drop(at, message, is_media);
        }
        match self.peers[at].inbox.try_send((self.own, message)) {
            Ok(()) => {
                self.is_touched[at] = true;
                0
            }
            Err(TrySendError::Full((_, message))) => self.keep_or_drop(at, message, is_media),
            // The other worker has ended.
            Err(TrySendError::Disconnected(_)) => 1,
        }
    }

    /// Wakes the workers that got something. True if messages still wait for room.
    pub(crate) fn finish(&mut self) -> bool {
        for at in 0..self.peers.len() {
            self.retry(at);
            if std::mem::take(&mut self.is_touched[at]) {
                self.peers[at].wake.signal();
            }
        }
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    fn keep_or_drop(&mut self, at: usize, message: ShardMessage, is_media: bool) -> u64 {
        if !is_media {
            self.waiting[at].push_back(message);
        }
        u64::from(is_media)
    }

    fn retry(&mut self, at: usize) {
        while let Some(message) = self.waiting[at].pop_front() {
            match self.peers[at].inbox.try_send((self.own, message)) {
                Ok(()) => self.is_touched[at] = true,
                Err(TrySendError::Full((_, message))) => {
                    self.waiting[at].push_front(message);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mrtc_core::shard_message::MirrorKey;

    use super::*;

    fn packets() -> ShardMessage {
        ShardMessage::Packets(vec![])
    }

    fn ended(n: u64) -> ShardMessage {
        ShardMessage::TrackEnded { key: MirrorKey(n) }
    }

    #[test]
    fn when_full_media_is_dropped_and_the_rest_waits_in_order() {
        let (peer, receiver) = inbox(Arc::new(EventFd::new().unwrap()));
        let mut link = ShardLink::new(ShardIndex(1), vec![peer]);
        let to = ShardIndex(0);
        for _ in 0..INBOX {
            assert_eq!(link.send(to, packets()), 0);
        }
        assert_eq!(link.send(to, packets()), 1);
        assert_eq!((link.send(to, ended(1)), link.send(to, ended(2))), (0, 0));
        assert!(link.finish());
        assert_eq!(receiver.try_iter().count(), INBOX);
        assert!(!link.finish());
        let keys: Vec<u64> = receiver
            .try_iter()
            .map(|(from, message)| match message {
                ShardMessage::TrackEnded { key } if from == ShardIndex(1) => key.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(keys, [1, 2]);
    }

    #[test]
    fn a_worker_that_ended_gets_nothing() {
        let (peer, receiver) = inbox(Arc::new(EventFd::new().unwrap()));
        drop(receiver);
        let mut link = ShardLink::new(ShardIndex(1), vec![peer]);
        assert_eq!(link.send(ShardIndex(0), ended(1)), 1);
        assert_eq!(link.send(ShardIndex(9), ended(1)), 1);
        assert!(!link.finish());
    }
}
