"""More decoders: exact counts are those of published code with these sizes, or what papers' tables of shapes imply."""

# (family, size) -> parameters
COUNTS = {
    # arXiv 2204.02311
    ("palm", "8b"): 8_632_012_800,
    ("palm", "62b"): 62_495_662_080,
    ("palm", "540b"): 540_356_474_880,
    # arXiv 2104.12369
    ("pangu", "2.6b"): 2_625_295_360,
    ("pangu", "13b"): 12_800_870_400,
    ("pangu", "200b"): 206_861_008_896,
    # arXiv 2103.10360
    ("glm", "base"): 109_338_624,
    ("glm", "large"): 334_688_256,
    ("glm", "2b"): 1_920_122_880,
    ("glm", "10b"): 9_880_682_496,
    # arXiv 2404.14219
    ("phi3_small", "7b"): 7_392_272_384,
    # arXiv 2210.02414
    ("glm-130b", "130b"): 128_697_794_560,
    # arXiv 2406.12793
    ("chatglm", "6b"): 6_173_286_400,
    ("chatglm2", "6b"): 6_243_584_000,
    ("chatglm3", "6b"): 6_243_584_000,
}

# (family, size) -> published figure, and what is in doubt; ours is within 1.5 %
APPROXIMATE = {
    ("yalm", "100b"): (100_000_000_000, "the published total is rounded"),
}

# family -> why its sizes have no count to compare with
UNCOUNTED = {}
