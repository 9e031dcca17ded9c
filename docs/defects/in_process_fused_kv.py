"""python in_process_fused_kv.py: LMCache's in-process GPU connector stores KV of vLLM's layout LBNHC, and loads it elsewhere.

No engine and no model: each number of the KV says where it is. Needs a CUDA GPU, LMCache 0.5.6 and the torch that it is built with.
"""
import types, torch
from lmcache.v1.gpu_connector.gpu_connectors import VLLMPagedMemGPUConnectorV2
from lmcache.v1.memory_management import MemoryFormat

BLOCKS, BLOCK, HEADS, SIZE, TOKENS = 64, 16, 8, 128, 256
cuda = torch.device("cuda:0")
slots = torch.arange(TOKENS, device=cuda)                # the KV is in blocks 0 to 15,
other = slots + 2 * TOKENS                               # and is loaded into blocks 32 to 47
kv = torch.full((BLOCKS, BLOCK, HEADS, 2 * SIZE), -1.0, device=cuda)  # physical order of LBNHC: K and V of a head side by side
half = torch.arange(2 * SIZE, device=cuda) // SIZE       # 0 in K, 1 in V
rows = slots[:, None, None] * 100 + torch.arange(HEADS, device=cuda)[:, None] * 10 + half  # token, head, K or V
kv[slots // BLOCK, slots % BLOCK] = rows.float()
layers = [kv.permute(0, 2, 1, 3)]                        # as vLLM registers it: [blocks, heads, tokens, K and V]

gpu = VLLMPagedMemGPUConnectorV2(HEADS * SIZE, 1, layout_hints={"kv_layout": "NHD"})
memory = types.SimpleNamespace(tensor=torch.full((2, 1, TOKENS, HEADS * SIZE), -7.0).pin_memory())
memory.metadata = types.SimpleNamespace(fmt=MemoryFormat.KV_2LTD)
gpu.from_gpu(memory, 0, TOKENS, kvcaches=layers, slot_mapping=slots)
gpu.to_gpu(memory, 0, TOKENS, kvcaches=layers, slot_mapping=other), torch.cuda.synchronize()
for token in (0, 1, 2, 3, 200, 255):                     # expected: TOKEN x 100 + head x 10, and + 1 in the second list
    k, v = memory.tensor[:, 0, token].view(2, HEADS, SIZE)[:, :, 0].int().tolist()
    print(f"token {token}: K of heads 0 to 7 = {k}, V = {v}")
loaded = kv[other // BLOCK, other % BLOCK]
print(f"loaded as it was stored: {bool((loaded == rows).all())}, {(loaded != rows).float().mean().item():.1%} of the numbers differ")
