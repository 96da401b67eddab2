//! Questions of pods to their node's DNS. While the agent lives, the commonest are answered here out of a table that it keeps
//! ([`answer`]), and the rest goes on to it; while it does not, each is sent to another node's ([`elsewhere`]).

use eastwest_abi::names::{
    ANSWER_MAX, Answer, BEAT_MAX, NAME_MAX, NameCounts, Names, PEERS, Question, SERVERS,
};
use eastwest_abi::{Addr4, Addr6, config_flags, counter};

use crate::address::Address;
use crate::checksum::{self, Sum};
use crate::parse::kind;
use crate::pod::not_written;
use crate::refuse::network_header;
use crate::rewrite::{rewrite, turn_around};
use crate::track::{self, Opened};
use crate::traits::{Maps, Packet, Verdict};
use crate::wire::{ETHERNET, PROTOCOL_TCP, PROTOCOL_UDP, UDP, tcp};
use crate::work::Work;

/// Port of DNS, in network order.
pub(crate) const PORT: u16 = 53u16.to_be();

/// Length of a message's header.
const HEADER: usize = 12;
/// Length of OPT without options.
const OPT: usize = 11;
/// The longest question: header, name, type and class, OPT.
const LONGEST: u32 = (HEADER + NAME_MAX + 4 + OPT) as u32;
/// Labels of a name of `NAME_MAX` octets, at most.
const LABELS: usize = NAME_MAX / 2;
/// Room for a message, and for what is written behind its end.
pub const ROOM: usize = 2 * 256 + 8;
/// Attempts to find a free tuple towards another node.
const ATTEMPTS: u32 = 2;

const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// Memory for a question.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The message, which becomes its own answer.
    pub message: [u8; ROOM],
    pub question: Question,
}

impl Default for Asked {
    fn default() -> Self {
        Self { message: [0; ROOM], question: Question::default() }
    }
}

/// The tables of names.
pub trait NameMaps {
    /// Where DNS is asked.
    fn names(&self) -> Option<&Names>;
    /// A word of `eastwest_abi::names::word`.
    fn word(&self, index: u32) -> u64;
    /// The monotonic clock, ns.
    fn nanoseconds(&self) -> u64;
    /// The answer to a question.
    fn answer(&self, question: &Question) -> Option<&Answer>;
    /// Counts an answer of these octets to a question of these octets, type and DO, at the nth server.
    fn count_answer(&mut self, server: u32, told: &Told);
    /// Counts a packet for the nth server that goes to another node.
    fn count_elsewhere(&mut self, server: u32);
}

/// An answer that was given, for the counters.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub aaaa: bool,
    pub dnssec_ok: bool,
    /// Octets of the question.
    pub request: u32,
    /// Octets of the answer.
    pub response: u32,
}

impl Told {
    /// Adds it to the counters.
    #[inline(always)]
    pub fn count(&self, counts: &mut NameCounts) {
        if self.aaaa {
            counts.aaaa += 1;
        } else {
            counts.a += 1;
        }
        counts.dnssec_ok += u64::from(self.dnssec_ok);
        counts.request_bytes += u64::from(self.request);
        counts.response_bytes += u64::from(self.response);
        counts.request_100 += u64::from(self.request > 100);
        counts.response_100 += u64::from(self.response > 100);
        counts.response_200 += u64::from(self.response > 200);
    }
}

/// A packet of which many bytes are copied at once.
pub trait Bulk: Packet {
    /// Copies `length` bytes at `at` to the start of `to`; `length` is from 1 to 255 and no more than `to` has.
    fn copy_out<const N: usize>(&self, at: u32, to: &mut [u8; N], length: u32) -> bool;
    /// The same into words, which are zero.
    fn copy_name(&self, at: u32, to: &mut [u64; NAME_MAX / 8], length: u32) -> bool;
    /// Puts the first `length` bytes of `from` at `at`; `length` as above.
    #[must_use]
    fn copy_in<const N: usize>(&mut self, at: u32, from: &[u8; N], length: u32) -> bool;
    /// The offset, which is at most 255; where a verifier follows the program, it sees that of the value.
    #[inline(always)]
    fn place(at: usize) -> usize {
        at & 0xff
    }
    /// The sum of the first `length` bytes, up to 255, rounded up to a multiple of 4.
    fn sum<const N: usize>(bytes: &[u8; N], length: u32) -> Sum;
}

/// A family's part of [`Names`].
pub trait Named: Address {
    /// The node's DNS.
    fn servers(names: &Names) -> &[Self; SERVERS];
    /// Other nodes', and how many there are.
    fn peers(names: &Names) -> (&[Self; PEERS], u32);
}

impl Named for Addr4 {
    #[inline(always)]
    fn servers(names: &Names) -> &[Self; SERVERS] {
        &names.servers4
    }

    #[inline(always)]
    fn peers(names: &Names) -> (&[Self; PEERS], u32) {
        (&names.peers4, names.count4)
    }
}

impl Named for Addr6 {
    #[inline(always)]
    fn servers(names: &Names) -> &[Self; SERVERS] {
        &names.servers6
    }

    #[inline(always)]
    fn peers(names: &Names) -> (&[Self; PEERS], u32) {
        (&names.peers6, names.count6)
    }
}

/// Whether a packet without a flow is for the node's DNS; which server it asks is noted in `Work::value`, for the functions
/// below.
#[inline(always)]
pub fn asks<A: Named, M: Maps<A> + NameMaps>(maps: &M, work: &mut Work<A>) -> bool {
    if maps.config().is_none_or(|config| config.flags & config_flags::NAMES == 0) {
        return false;
    }
    let Some(names) = maps.names() else { return false };
    let daddr = work.flow.key.daddr;
    let mut found = 0;
    for (i, server) in A::servers(names).iter().enumerate() {
        if server.same(daddr) {
            found = i as u32 + 1;
        }
    }
    if found == 0 || daddr.is_none() {
        return false;
    }
    work.value.service = found - 1 + if A::IPV6 { SERVERS as u32 } else { 0 };
    true
}

/// Whether the agent has been seen of late.
#[inline(always)]
pub fn lives<M: NameMaps>(maps: &M) -> bool {
    let beat = maps.word(eastwest_abi::names::word::BEAT);
    // The clock is a coarse one here, and may be a little behind.
    beat != 0 && (maps.nanoseconds().wrapping_sub(beat) as i64) < BEAT_MAX as i64
}

/// Sends a question for a DNS that does not answer to another node's. Each packet of UDP chooses anew, so one that is sent
/// again will find a node that lives, and from the moment that the agent is back it is asked again. TCP stays where it began.
#[inline(always)]
pub fn elsewhere<A: Named, M: Maps<A> + NameMaps, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    let flow = &work.flow;
    let opens = flow.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    if flow.kind != kind::WHOLE || flow.key.protocol == PROTOCOL_TCP && !opens {
        return Verdict::Pass;
    }
    if !open(maps, work) {
        return Verdict::Pass;
    }
    if let Err(error) = rewrite(maps, packet, work, false) {
        return not_written(maps, error);
    }
    maps.count(counter::FORWARD);
    Verdict::Pass
}

/// Opens a flow to any of the other nodes.
#[inline(never)]
fn open<A: Named, M: Maps<A> + NameMaps>(maps: &mut M, work: &mut Work<A>) -> bool {
    let server = work.value.service;
    let again = maps.track(&work.flow.key).is_some();
    for attempt in 0..ATTEMPTS {
        let random = maps.random();
        let Some(names) = maps.names() else { return false };
        let (peers, count) = A::peers(names);
        if count == 0 {
            return false;
        }
        let nth = ((u64::from(random) * u64::from(count)) >> 32) as usize % PEERS;
        let (key, value) = (&work.flow.key, &mut work.value);
        value.saddr = key.saddr;
        value.daddr = peers[nth];
        value.sport = if attempt == 0 { key.sport } else { (random as u16 | 0x4000).to_be() };
        value.dport = u16::from_ne_bytes(names.port);
        // The id that is never in use: so the next packet of UDP is not held to this choice.
        (value.service, value.backend, value.generation) = (0, 0, 0);
        value.seen = maps.now();
        value.flags = 0;
        value.state = track::added_state(work.flow.tcp_flags, key.direction);
        match track::open(maps, work, again) {
            Opened::Yes => {
                maps.count_elsewhere(server);
                return true;
            }
            Opened::Taken => {}
            Opened::Full => return false,
        }
    }
    false
}

/// Turns a question that the table knows into its answer, the same to the byte as the agent's. Everything else passes: more
/// than the plainest query, a name that is not there, anything that is doubtful.
#[inline(always)]
pub fn answer<A: Named, M: Maps<A> + NameMaps, P: Bulk>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
    asked: &mut Asked,
) -> Verdict {
    let flow = &work.flow;
    let plain = flow.key.protocol == PROTOCOL_UDP
        && flow.kind == kind::WHOLE
        && flow.l4 as usize == ETHERNET + A::HEADER;
    let length = flow.l4_length.wrapping_sub(UDP as u32);
    if !plain || length < (HEADER + 5) as u32 || length > LONGEST {
        return Verdict::Pass;
    }
    let at = ETHERNET + A::HEADER;
    let message_at = (at + UDP) as u32;
    if !packet.ensure(message_at) || !packet.copy_out(message_at, &mut asked.message, length) {
        return Verdict::Pass;
    }
    let Some(read) = read(packet, message_at, length, asked) else { return Verdict::Pass };
    let Some(answer) = maps.answer(&asked.question) else { return Verdict::Pass };

    let Some([sport, dport, _, field]) = packet.load::<u16, 4>(at) else { return Verdict::Pass };
    let ends = work.flow.key.daddr.sum(work.flow.key.saddr.sum(Sum::ZERO));
    let old = ends.join(checksum::pseudo(PROTOCOL_UDP, work.flow.l4_length));
    // Kept partial when it is so, since the kernel keeps the mark on the packet and might complete it.
    let mut partial = false;
    if field != 0 && field == old.fold() {
        clear::<P>(&mut asked.message, length);
        let segment = P::sum(&asked.message, length)
            .add(sport.into())
            .add(dport.into())
            .add((work.flow.l4_length as u16).to_be().into())
            .add(field.into());
        if segment.join(old).fold() == 0xffff {
            return Verdict::Pass;
        }
        partial = true;
    }

    let total = write::<P>(maps.word(eastwest_abi::names::word::SERIAL) as u32, answer, &read, asked);
    let told = Told {
        aaaa: asked.question.qtype == u32::from(TYPE_AAAA),
        dnssec_ok: read.dnssec_ok,
        request: length,
        response: total,
    };
    let segment = total + UDP as u32;
    let pseudo = ends.join(checksum::pseudo(PROTOCOL_UDP, segment));
    let field = (segment as u16).to_be();
    let sum = if partial {
        pseudo.fold()
    } else {
        let sum = P::sum(&asked.message, total).add(sport.into()).add(dport.into()).add(field.into());
        match !sum.join(pseudo).fold() {
            0 => 0xffff,
            sum => sum,
        }
    };
    if !packet.resize(message_at + total) {
        return Verdict::Pass;
    }
    let written = packet.copy_in(message_at, &asked.message, total)
        && packet.ensure(message_at)
        && turn_around(packet)
        && network_header(packet, &work.flow, work.flow.key.daddr, PROTOCOL_UDP, segment as u16, 0).is_some()
        && packet.store(at, &[dport, sport, field, sum]);
    if !written {
        maps.count(counter::WRITE_FAILED);
        return Verdict::Drop;
    }
    maps.count_answer(work.value.service, &told);
    Verdict::Back
}

/// What is to be known of a question besides its name and type.
struct Read {
    /// Where the question ends.
    end: usize,
    edns: bool,
    dnssec_ok: bool,
}

/// Reads a query of one question, class IN, with a plain OPT or none.
#[inline(always)]
fn read<P: Bulk>(packet: &P, message_at: u32, length: u32, asked: &mut Asked) -> Option<Read> {
    let m = &asked.message;
    // RD in the first byte of flags, AD and CD in the second.
    let flags = m[2] & !0x01 | m[3] & !0x30;
    let counts = m[4] | m[5] ^ 1 | m[6] | m[7] | m[8] | m[9] | m[10] | m[11] & !1;
    if flags | counts != 0 {
        return None;
    }
    let edns = m[11] == 1;
    let mut pos = HEADER;
    let mut ended = false;
    for _ in 0..LABELS {
        let label = usize::from(m[P::place(pos)]);
        if label == 0 {
            ended = true;
            break;
        }
        pos += label + 1;
        if label > 63 || pos >= HEADER + NAME_MAX {
            break;
        }
    }
    let pos = P::forget(pos as u64) as usize;
    if !ended || !(HEADER..HEADER + NAME_MAX).contains(&pos) {
        return None;
    }
    let at = P::place(pos + 1);
    let word = |at: usize| u16::from_be_bytes([m[at], m[at + 1]]);
    let (qtype, qclass, end) = (word(at), word(at + 2), at + 4);
    if qclass != CLASS_IN || qtype != TYPE_A && qtype != TYPE_AAAA {
        return None;
    }
    let mut dnssec_ok = false;
    if edns {
        // Root, type 41, any size, no extended code, version 0, nothing set but DO, no options.
        let byte = |i: usize| m[end + i];
        let set = byte(0) | byte(1) | byte(2) ^ 41 | byte(5) | byte(6) | byte(7) & 0x7f;
        if set | byte(8) | byte(9) | byte(10) != 0 {
            return None;
        }
        dnssec_ok = byte(7) != 0;
    }
    if length != end as u32 + if edns { OPT as u32 } else { 0 } {
        return None;
    }
    asked.question = Question { name: [0; NAME_MAX / 8], qtype: qtype.into(), pad: 0 };
    if !packet.copy_name(message_at + HEADER as u32, &mut asked.question.name, (pos + 1 - HEADER) as u32) {
        return None;
    }
    for word in &mut asked.question.name {
        *word = lower(*word);
    }
    Some(Read { end, edns, dnssec_ok })
}

/// Each of eight octets that is an upper-case letter, in lower case. Length octets are below all letters.
#[inline(always)]
pub const fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7f * EACH);
    let above_z = low + ((0x7f - b'Z' as u64) * EACH);
    let from_a = low + ((0x80 - b'A' as u64) * EACH);
    let upper = (from_a ^ above_z) & !word & (0x80 * EACH);
    word | upper >> 2
}

/// Zeros behind the message, as sums are of whole words.
#[inline(always)]
fn clear<P: Bulk>(message: &mut [u8; ROOM], length: u32) {
    let at = P::place(length as usize);
    (message[at], message[at + 1], message[at + 2], message[at + 3]) = (0, 0, 0, 0);
}

/// Makes the message its answer; gives its length.
#[inline(always)]
fn write<P: Bulk>(serial: u32, answer: &Answer, read: &Read, asked: &mut Asked) -> u32 {
    let m = &mut asked.message;
    // An answer, authoritative; RD as it came; recursion is available; CD as it came.
    m[2] |= 0x84;
    m[3] = 0x80 | m[3] & 0x10;
    m[7] = answer.answers;
    m[9] = answer.authority;
    let end = P::place(read.end);
    for (i, word) in answer.data.iter().enumerate() {
        for (j, byte) in word.to_ne_bytes().into_iter().enumerate() {
            m[end + i * 8 + j] = byte;
        }
    }
    if usize::from(answer.serial_at) < ANSWER_MAX {
        let at = end + P::place(answer.serial_at.into());
        let [a, b, c, d] = serial.to_be_bytes();
        (m[at], m[at + 1], m[at + 2], m[at + 3]) = (a, b, c, d);
    }
    let mut total = end + usize::from(answer.length);
    if read.edns {
        let [high, low] = answer.advertise;
        let opt = [0, 0, 41, high, low, 0, 0, if read.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0];
        let at = P::place(total);
        for (i, byte) in opt.iter().enumerate() {
            m[at + i] = *byte;
        }
        total += OPT;
    }
    clear::<P>(m, total as u32);
    total as u32
}
