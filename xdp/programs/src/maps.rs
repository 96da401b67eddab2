//! The maps. Sizes here are defaults: user space sets `max_entries` before it loads the object.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::macros::btf_map;
use eastwest_abi::names::{Answer, NameCounts, Names, Question, SERVERS, word};
use eastwest_abi::{
    Addr4, Addr6, Affinity, AffinityKey4, AffinityKey6, Backend, Config, Conntrack4, Conntrack6,
    ConntrackKey4, ConntrackKey6, EndpointKey4, EndpointKey6, Fragment, FragmentKey4, FragmentKey6, Frontend,
    FrontendKey4, FrontendKey6, Socket, SocketKey, Source4, Source6, cache, counter,
};
use eastwest_packet::{Asked, Kept, Work};

#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
pub static FRONTENDS4: HashMap<FrontendKey4, Frontend, 65536, 1> = HashMap::new();
#[btf_map]
pub static FRONTENDS6: HashMap<FrontendKey6, Frontend, 65536, 1> = HashMap::new();
#[btf_map]
pub static BACKENDS: Array<Backend, 131072, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
pub static SLOTS: Array<u32, 524288, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
pub static ENDPOINTS4: HashMap<EndpointKey4, u32, 131072, 1> = HashMap::new();
#[btf_map]
pub static ENDPOINTS6: HashMap<EndpointKey6, u32, 131072, 1> = HashMap::new();
#[btf_map]
pub static CONNTRACK4: LruHashMap<ConntrackKey4, Conntrack4, 262144> = LruHashMap::new();
#[btf_map]
pub static CONNTRACK6: LruHashMap<ConntrackKey6, Conntrack6, 262144> = LruHashMap::new();
#[btf_map]
pub static SOCKETS: LruHashMap<SocketKey, Socket, 65536> = LruHashMap::new();
#[btf_map]
pub static AFFINITY4: LruHashMap<AffinityKey4, Affinity, 65536> = LruHashMap::new();
#[btf_map]
pub static AFFINITY6: LruHashMap<AffinityKey6, Affinity, 65536> = LruHashMap::new();
#[btf_map]
pub static SOURCES4: LpmTrie<Source4, u32, 65536> = LpmTrie::new();
#[btf_map]
pub static SOURCES6: LpmTrie<Source6, u32, 65536> = LpmTrie::new();
#[btf_map]
pub static FRAGMENTS4: LruHashMap<FragmentKey4, Fragment, 8192> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS6: LruHashMap<FragmentKey6, Fragment, 8192> = LruHashMap::new();
#[btf_map]
pub static NICS: HashMap<u32, u32, 256> = HashMap::new();
#[btf_map]
pub static SAMPLING: Array<u32, 1> = Array::new();
/// Of `Event`. A ring has no values, and libbpf wants their type to have no size.
#[btf_map]
pub static EVENTS: RingBuf<[u8; 0], 262144> = RingBuf::new();
#[btf_map]
pub static CONNECTIONS: Array<u64, 65536, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { counter::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub static CHANGES: Array<u32, { cache::ADDED as usize + 1 }> = Array::new();
#[btf_map]
pub static CACHE4: PerCpuArray<Kept<Addr4>, { cache::PLACES as usize }> = PerCpuArray::new();
#[btf_map]
pub static CACHE6: PerCpuArray<Kept<Addr6>, { cache::PLACES as usize }> = PerCpuArray::new();

/// Memory for flows that are being opened.
#[btf_map]
pub static WORK4: PerCpuArray<Work<Addr4>, 1> = PerCpuArray::new();
#[btf_map]
pub static WORK6: PerCpuArray<Work<Addr6>, 1> = PerCpuArray::new();

#[btf_map]
pub static NAMES: Array<Names, 1> = Array::new();
#[btf_map]
pub static NAMES_WORDS: Array<u64, { word::COUNT as usize }> = Array::new();
#[btf_map]
pub static ANSWERS: HashMap<Question, Answer, 65536, 1> = HashMap::new();
#[btf_map]
pub static NAMES_COUNTS: PerCpuArray<NameCounts, { 2 * SERVERS }> = PerCpuArray::new();
#[btf_map]
pub static ANSWER_TC: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub static ANSWER_XDP: ProgramArray<1> = ProgramArray::new();

/// Memory for a question.
#[btf_map]
pub static ASKED: PerCpuArray<Asked, 1> = PerCpuArray::new();
