//! Messages in pieces, and the receive buffers they hold on to.

use relay_contract::Counter;
use relay_driver::{Chunk, Driver, Key};

use crate::assembly::Assembly;
use crate::connection::Phase;
use crate::shard::{SPARE_ASSEMBLIES_MAX, Shard};

impl<D: Driver> Shard<D> {
    /// Adds a piece to the connection's open message.
    ///
    /// Open messages of all connections may together hold a quarter of the receive buffers; past
    /// that one of them is copied, so that peers that never finish a message cannot starve the
    /// others.
    pub(crate) fn gather(&mut self, key: Key, piece: Chunk) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        let Phase::Open(open) = &mut connection.phase else {
            return;
        };
        if open.assembly.is_none() {
            let mut assembly = self.spare_assemblies.pop().unwrap_or_default();
            // The scanner that read the first piece goes with the message.
            std::mem::swap(&mut assembly.scanner, &mut self.scanner);
            open.assembly = Some(assembly);
        }
        let Some(assembly) = &mut open.assembly else {
            return;
        };
        let before = assembly.leases();
        let bytes_ahead = open.decoder.payload_bytes_ahead();
        let copied = assembly.push(piece, bytes_ahead, &mut self.blocks);
        let after = assembly.leases();
        self.pinned_leases = self.pinned_leases + after - before;
        self.counters.add(Counter::CopiedBytes, copied as u64);
        match (assembly.pin, after) {
            (None, 1..) => {
                assembly.pin = Some(self.pins.len());
                self.pins.push(key);
            }
            (Some(_), 0) => self.unpin(key),
            _ => {}
        }
        self.charge(key);
        while self.pinned_leases > self.config.receive_buffers / 4 && !self.pins.is_empty() {
            self.copy_one();
        }
    }

    /// Copies the next open message in turn out of its buffers.
    fn copy_one(&mut self) {
        self.pin_hand = (self.pin_hand + 1) % self.pins.len().max(1);
        let Some(&key) = self.pins.get(self.pin_hand) else {
            return;
        };
        let mut blocks = std::mem::take(&mut self.blocks);
        if let Some(assembly) = self.assembly_mut(key) {
            let leases = assembly.leases();
            let copied = assembly.copy_out(&mut blocks);
            self.pinned_leases -= leases;
            self.counters.add(Counter::CopiedBytes, copied as u64);
            self.charge(key);
        }
        self.blocks = blocks;
        self.unpin(key);
    }

    /// Takes the connection off the list of those that hold buffers.
    pub(crate) fn unpin(&mut self, key: Key) {
        let Some(pin) = self.assembly_mut(key).and_then(|assembly| assembly.pin.take()) else {
            return;
        };
        self.pins.swap_remove(pin);
        if let Some(&moved) = self.pins.get(pin)
            && let Some(assembly) = self.assembly_mut(moved)
        {
            assembly.pin = Some(pin);
        }
    }

    pub(crate) fn assembly_mut(&mut self, key: Key) -> Option<&mut Assembly> {
        match &mut self.table.get_mut(key)?.phase {
            Phase::Open(open) => open.assembly.as_deref_mut(),
            _ => None,
        }
    }

    /// Takes the finished message away from the connection.
    pub(crate) fn take_assembly(&mut self, key: Key) -> Option<Box<Assembly>> {
        self.unpin(key);
        let Phase::Open(open) = &mut self.table.get_mut(key)?.phase else {
            return None;
        };
        let assembly = open.assembly.take()?;
        self.pinned_leases -= assembly.leases();
        self.charge(key);
        Some(assembly)
    }

    /// Drops an unfinished message.
    pub(crate) fn forget_assembly(&mut self, key: Key) {
        if let Some(assembly) = self.take_assembly(key) {
            self.spare_assembly(assembly);
        }
    }

    /// Keeps the box for the next message in pieces. What is left in it is freed bit by bit.
    pub(crate) fn spare_assembly(&mut self, mut assembly: Box<Assembly>) {
        let before = self.discarded.held_bytes();
        assembly.discard_into(&mut self.discarded);
        self.budget.hold(self.discarded.held_bytes() - before);
        assembly.renew();
        if self.spare_assemblies.len() < SPARE_ASSEMBLIES_MAX {
            self.spare_assemblies.push(assembly);
        }
    }
}
