//! Data messages: from the participant who said them to everybody else of the room, in this shard and in the others.

use std::sync::Arc;

use super::Shard;
use crate::data::frame::{MAX_NAME_BYTES, MAX_NAMES};
use crate::data::port::Access;
use crate::data::{Content, DataMessage, Delivery, is_topic};
use crate::error::Error;
use crate::event::Reply;
use crate::id::{RoomId, ShardIndex, TransportId};
use crate::keys::TransportKey;
use crate::shard_message::ShardMessage;

/// Who receives a room's data.
#[derive(Debug, Default)]
pub(super) struct DataRoom {
    members: Vec<TransportKey>,
    /// Other shards with members.
    shards: Vec<ShardIndex>,
}

impl DataRoom {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.shards.is_empty()
    }
}

impl Shard {
    pub(super) fn set_data_access(
        &mut self,
        id: &TransportId,
        identity: &str,
        can_publish: bool,
    ) -> Result<Reply, Error> {
        check_identity(identity)?;
        let key = self.find_transport(id)?;
        let data = self.transports[key.index()].data.get_or_insert_default();
        data.access = Some(Access { identity: identity.into(), can_publish });
        self.update_data_member(key);
        // What the client said so far waits for this.
        self.take_data(key);
        self.arm_transport(key);
        Ok(Reply::Done)
    }

    /// Sends a message that comes from no transport.
    pub(super) fn send_data(
        &mut self,
        room: RoomId,
        sender: &str,
        topic: &str,
        is_reliable: bool,
        content: Content<'_>,
    ) -> Result<Reply, Error> {
        check_identity(sender)?;
        content.to.iter().try_for_each(|name| check_identity(name))?;
        let delivery = if is_reliable { Delivery::RELIABLE } else { Delivery::LOSSY };
        if !is_topic(topic) {
            return Err(Error::BadRequest("a topic has 1 to 64 visible ASCII characters".into()));
        }
        if content.to.len() > MAX_NAMES {
            return Err(Error::LimitExceeded(format!("{MAX_NAMES} addressees")));
        }
        if content.payload.len() > delivery.max_payload() {
            return Err(Error::LimitExceeded(format!("{} bytes of a data message", delivery.max_payload())));
        }
        self.fan_out_data(DataMessage::new(room, sender.into(), topic.into(), delivery, content));
        Ok(Reply::Done)
    }

    /// A transport whose data channels are negotiated and whose client is known receives.
    pub(super) fn update_data_member(&mut self, key: TransportKey) {
        let now = self.now;
        let transport = &mut self.transports[key.index()];
        transport.settle_data(now);
        let room = transport.room.clone();
        let Some(port) = transport.data_port() else { return };
        if port.access.is_none() || std::mem::replace(&mut port.is_member, true) {
            return;
        }
        let data_room = self.data_rooms.entry(room.clone()).or_default();
        data_room.members.push(key);
        if data_room.members.len() == 1 {
            self.tell_data_room(&room, true);
        }
    }

    pub(super) fn leave_data_room(&mut self, key: TransportKey) {
        let transport = &mut self.transports[key.index()];
        let room = transport.room.clone();
        if !transport.data_port().is_some_and(|port| std::mem::take(&mut port.is_member)) {
            return;
        }
        let Some(data_room) = self.data_rooms.get_mut(&room) else { return };
        data_room.members.retain(|member| *member != key);
        if data_room.members.is_empty() {
            self.tell_data_room(&room, false);
            self.drop_empty_data_room(&room);
        }
    }

    fn tell_data_room(&mut self, room: &RoomId, has_members: bool) {
        for shard in (0..self.config.shard_count).map(ShardIndex).filter(|s| *s != self.config.index) {
            self.messages.push_back((shard, ShardMessage::DataRoom { room: room.clone(), has_members }));
        }
    }

    /// Another shard has members of the room now, or no longer.
    pub(super) fn note_data_peer(&mut self, from: ShardIndex, room: RoomId, has_members: bool) {
        let data_room = self.data_rooms.entry(room.clone()).or_default();
        data_room.shards.retain(|shard| *shard != from);
        if has_members {
            data_room.shards.push(from);
        }
        self.drop_empty_data_room(&room);
    }

    fn drop_empty_data_room(&mut self, room: &RoomId) {
        if self.data_rooms.get(room).is_some_and(DataRoom::is_empty) {
            self.data_rooms.remove(room);
        }
    }

    /// Takes what a client said and passes it on.
    pub(super) fn take_data(&mut self, key: TransportKey) {
        let now = self.now;
        let transport = &mut self.transports[key.index()];
        let Some(port) = transport.data.as_mut().and_then(|d| d.port.as_mut()) else { return };
        let mut said = Vec::new();
        port.receive(now, &transport.room, &mut self.counters, &mut said);
        said.into_iter().for_each(|message| self.fan_out_data(message));
        // Acknowledgements and the like.
        self.mark_transport(key);
    }

    /// A message of this shard goes to all.
    fn fan_out_data(&mut self, message: DataMessage) {
        let message = Arc::new(message);
        let Some(room) = self.data_rooms.get(&message.room) else { return };
        for shard in &room.shards {
            self.counters.tx_shard_data += 1;
            self.messages.push_back((*shard, ShardMessage::Data(message.clone())));
        }
        self.deliver_data(&message);
    }

    /// A message goes to those of its receivers who are here.
    pub(super) fn deliver_data(&mut self, message: &DataMessage) {
        let now = self.now;
        let Some(room) = self.data_rooms.get(&message.room) else { return };
        for key in room.members.clone() {
            let Some(port) = self.transports.get_mut(key.index()).and_then(|t| t.data_port()) else { continue };
            let is_wanted = port.access.as_ref().is_some_and(|access| message.is_for(&access.identity));
            if is_wanted && port.send(now, message, &mut self.counters) {
                self.mark_transport(key);
            }
        }
    }
}

fn check_identity(identity: &str) -> Result<(), Error> {
    if (1..=MAX_NAME_BYTES).contains(&identity.len()) {
        return Ok(());
    }
    Err(Error::BadRequest(format!("an identity has 1 to {MAX_NAME_BYTES} bytes")))
}
