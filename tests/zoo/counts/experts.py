"""Models with experts: exact counts are those of published code with these sizes."""

# (family, size) -> parameters
COUNTS = {
    # arXiv 2401.04088
    ("mixtral", "8x7b"): 46_702_792_704,
    ("mixtral", "8x22b-v0.1"): 140_620_634_112,
    ("mixtral", "8x22b-v0.3"): 140_630_071_296,
    # arXiv 2401.06066
    ("deepseek_moe", "16b"): 16_375_728_128,
    # arXiv 2207.04672: transformers' class
    ("nllb_moe", "54b"): 54_500_569_088,
    # arXiv 2112.06905: of the shapes in its table, with the vocabularies that fit its totals
    ("glam", "0.1b"): 137_846_016,
    ("glam", "0.1b-64e"): 1_907_612_928,
    ("glam", "1.7b"): 1_676_261_376,
    ("glam", "1.7b-32e"): 13_957_969_920,
    ("glam", "1.7b-64e"): 26_843_658_240,
    ("glam", "1.7b-128e"): 52_615_034_880,
    ("glam", "1.7b-256e"): 104_157_788_160,
    ("glam", "8b"): 8_721_305_600,
    ("glam", "8b-64e"): 142_943_227_904,
    ("glam", "137b"): 137_702_416_384,
    ("glam", "64b-64e"): 1_161_756_418_048,
    # arXiv 2405.04434
    ("deepseek_v2", "lite"): 15_706_484_224,
    ("deepseek_v2", "236b"): 235_741_434_880,
    # arXiv 2412.19437: without the module that predicts the second next token, and without balance biases
    ("deepseek_v3", "671b"): 671_026_404_352,
    ("deepseek_v3", "r1"): 671_026_404_352,
    # arXiv 2407.10671
    ("qwen2_moe", "1.5-a2.7b"): 14_315_784_192,
    ("qwen2_moe", "57b-a14b"): 57_408_658_944,
    # arXiv 2505.09388
    ("qwen3_moe", "30b-a3b"): 30_532_122_624,
    ("qwen3_moe", "235b-a22b"): 235_093_634_560,
    # arXiv 2409.02060
    ("olmoe", "1b-7b"): 6_919_161_856,
    # arXiv 2508.10925
    ("gpt_oss", "20b"): 20_914_757_184,
    ("gpt_oss", "120b"): 116_829_156_672,
    # arXiv 2404.14219
    ("phimoe", "3.5-16x3.8b"): 41_873_153_344,
    # arXiv 2404.07413
    ("jetmoe", "8b"): 8_522_237_952,
    # Tencent 2025
    ("hunyuan_moe", "a13b"): 80_393_183_232,
    # Databricks 2024
    ("dbrx", "132b"): 131_596_523_520,
    # Snowflake 2024
    ("arctic", "480b"): 478_584_608_768,
    # xAI 2024
    ("grok", "314b"): 315_684_820_992,
    # arXiv 2303.10845: its layers alone, then tables of tokens, of positions and of queries' positions, the last norm
    ("pangu_sigma", "1.085t"): 1_084_780_544_000 + (40_000 + 2 * 1024 + 2) * 5120,
    # arXiv 2106.10715: 26,240 rows and 32 experts in each layer make the published 198B; here with routers, and with
    # rows for English too
    ("cpm2_moe", "198b"): 198_320_828_416 + 48 * 32 * 4096 + 2 * (51_968 - 26_240) * 4096,
    # Granite team 2024
    ("granite_moe", "3.0-1b-a400m"): 1_334_628_352,
    ("granite_moe", "3.0-3b-a800m"): 3_298_793_472,
    # arXiv 2506.05767
    ("dots1", "142b"): 142_774_373_888,
    # arXiv 2508.06471: without the module that predicts the second next token, and without balance biases
    ("glm4_moe", "air-106b"): 106_852_245_504,
    ("glm4_moe", "355b"): 352_797_814_784,
    # Baidu 2025
    ("ernie4_5_moe", "21b-a3b"): 21_825_436_160,
    ("ernie4_5_moe", "300b-a47b"): 299_484_160_000,
}

# (family, size) -> parameters that a token passes through, all tables included
ACTIVE = {
    ("switch", "base-128"): 224_083_200,
    ("switch", "large-128"): 740_813_824,
    ("mixtral", "8x7b"): 12_879_925_248,
    ("mixtral", "8x22b-v0.1"): 39_152_031_744,
    ("glam", "0.1b-64e"): 152_296_704,
    ("glam", "1.7b-64e"): 1_879_160_832,
    ("glam", "8b-64e"): 9_799_241_728,
    ("glam", "64b-64e"): 96_604_528_640,
    ("deepseek_moe", "16b"): 2_828_650_496,
    ("deepseek_v2", "lite"): 2_661_150_208,
    ("deepseek_v2", "236b"): 21_375_800_320,
    ("deepseek_v3", "671b"): 37_552_282_624,
    ("qwen2_moe", "1.5-a2.7b"): 2_689_173_504,
    ("qwen2_moe", "57b-a14b"): 14_249_270_784,
    ("qwen3_moe", "30b-a3b"): 3_353_032_704,
    ("qwen3_moe", "235b-a22b"): 22_190_763_520,
    ("olmoe", "1b-7b"): 1_282_017_280,
    ("gpt_oss", "20b"): 4_187_440_704,
    ("gpt_oss", "120b"): 5_711_982_912,
    ("phimoe", "3.5-16x3.8b"): 6_640_999_744,
    ("jetmoe", "8b"): 2_331_445_248,
    ("hunyuan_moe", "a13b"): 12_747_448_320,
    ("dbrx", "132b"): 36_469_708_800,
    ("arctic", "480b"): 17_318_647_808,
    ("grok", "314b"): 83_756_587_008,
    ("cpm2_moe", "198b"): 11_297_861_632 + 48 * 32 * 4096,
    ("granite_moe", "3.0-1b-a400m"): 428_658_688,
    ("granite_moe", "3.0-3b-a800m"): 882_874_368,
    ("dots1", "142b"): 14_016_581_120,
    ("glm4_moe", "air-106b"): 13_424_123_904,
    ("glm4_moe", "355b"): 33_632_251_904,
    ("ernie4_5_moe", "21b-a3b"): 3_352_148_480,
    ("ernie4_5_moe", "300b-a47b"): 47_926_583_296,
}

APPROXIMATE: dict[tuple[str, str], tuple[int, str]] = {}
UNCOUNTED: dict[str, str] = {}
