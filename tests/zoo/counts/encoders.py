"""Encoders: exact counts are those of the transformers class with these sizes."""

from lm.hub.tables.encoders import POOLED
from lm.model.heads import NoHead

# (family, size) -> parameters
COUNTS = {
    # arXiv 1810.04805, 1908.08962; with the masked-LM head
    ("bert", "base"): 109_514_298,
    ("bert", "large"): 335_174_458,
    ("bert", "base-cased"): 108_340_804,
    ("bert", "large-cased"): 333_610_308,
    ("bert", "base-chinese"): 102_290_312,
    ("bert", "base-multilingual-cased"): 177_974_523,
    ("bert", "tiny"): 4_416_698,
    ("bert", "mini"): 11_201_594,
    ("bert", "small"): 28_795_194,
    ("bert", "medium"): 41_404_730,
    ("bert_wwm", "base"): 102_290_312,
    ("bert_wwm", "ext-base"): 102_290_312,
    ("spanbert", "base"): 108_340_804,
    ("spanbert", "large"): 333_610_308,
    ("macbert", "base"): 102_290_312,
    ("macbert", "large"): 325_545_608,
    ("tinybert", "4"): 14_381_394,
    ("tinybert", "6"): 66_987_066,
    ("bert_generation", "large"): 354_452_662,
    # arXiv 1904.09223, 1907.12412
    ("ernie", "1.0-base"): 99_885_648,
    ("ernie", "2.0-base"): 109_515_834,
    ("ernie", "2.0-large"): 335_176_506,
    ("ernie", "2.0-base-chinese"): 99_887_184,
    ("ernie", "2.0-large-chinese"): 317_011_456,
    ("ernie", "3.0-xbase"): 296_095_808,
    ("ernie", "3.0-base"): 117_986_368,
    ("ernie", "3.0-medium"): 75_469_120,
    ("ernie", "3.0-mini"): 26_990_272,
    ("ernie", "3.0-micro"): 23_441_344,
    ("ernie", "3.0-nano"): 17_952_856,
    # arXiv 1909.08053
    ("megatron_bert", "345m"): 333_671_808,
    ("megatron_bert", "1.3b"): 1_276_538_752,
    ("megatron_bert", "3.9b"): 3_862_699_392,
    # arXiv 1907.11692, 1911.02116, 2105.00572, 1911.03894
    ("roberta", "base"): 124_697_433,
    ("roberta", "large"): 355_412_057,
    ("roberta_prenorm", "base"): 124_698_969,
    ("xlm_roberta", "base"): 278_295_186,
    ("xlm_roberta", "large"): 560_142_482,
    ("xlm_roberta_xl", "xl"): 3_482_741_760,
    ("xlm_roberta_xl", "xxl"): 10_712_994_816,
    ("camembert", "base"): 110_655_493,
    ("camembert", "large"): 336_695_557,
    # arXiv 2004.09297
    ("mpnet", "base"): 109_518_527,
    # arXiv 2104.09864
    ("roformer", "base"): 124_099_664,
    ("roformer", "small"): 30_046_928,
    ("roformer", "char-base"): 94_877_664,
    ("roformer", "char-small"): 15_416_928,
    ("roformer", "small-discriminator"): 13_481_146,
    ("roformer", "small-generator"): 4_554_490,
    # arXiv 2412.13663
    ("modernbert", "base"): 149_655_232,
    ("modernbert", "large"): 395_881_664,
    # arXiv 1910.01108
    ("distilbert", "base"): 66_985_530,
    ("distilbert", "base-cased"): 65_812_036,
    ("distilbert", "base-multilingual-cased"): 135_445_755,
    # arXiv 1909.11942
    ("albert", "base"): 11_221_680,
    ("albert", "large"): 16_795_824,
    ("albert", "xlarge"): 54_821_040,
    ("albert", "xxlarge"): 206_368_944,
    # arXiv 2212.14034
    ("cramming", "base"): 119_589_888,
    # arXiv 2003.10555; discriminators with their head
    ("electra_both", "small"): 14_196_731,
    ("electra_both", "base"): 119_389_499,
    ("electra_both", "large"): 354_659_387,
    ("electra", "small"): 13_549_057,
    ("electra", "base"): 109_483_009,
    ("electra", "large"): 335_142_913,
    ("electra", "small-generator"): 4_620_026,
    ("electra", "base-generator"): 33_740_602,
    ("electra", "large-generator"): 51_295_290,
    # arXiv 2006.03654, 2111.09543; with the masked-LM head
    ("deberta", "base"): 139_244_121,
    ("deberta", "large"): 406_264_921,
    ("deberta", "xlarge"): 758_905_945,
    ("deberta_v2", "xlarge"): 887_085_156,
    ("deberta_v2", "xxlarge"): 1_567_041_636,
    ("deberta_v2", "v3-xsmall"): 70_958_820,
    ("deberta_v2", "v3-small"): 142_024_548,
    ("deberta_v2", "v3-base"): 184_551_780,
    ("deberta_v2", "v3-large"): 435_191_908,
    ("deberta_v2", "v3-multilingual-base"): 279_061_880,
    # arXiv 2004.05150, 2105.03887
    ("longformer", "base-4096"): 148_711_257,
    ("longformer", "large-4096"): 434_653_273,
    ("lawformer", "base"): 126_304_904,
    # arXiv 2007.14062; their class has a pooler besides, which it does not read
    ("bigbird", "roberta-base"): 128_111_286 - (768 * 768 + 768),
    ("bigbird", "roberta-large"): 360_225_974 - (1024 * 1024 + 1024),
}
# (family, size) -> what was published, and why ours is not exactly that
APPROXIMATE: dict[tuple[str, str], tuple[float, str]] = {}
# family -> why there is no count
UNCOUNTED: dict[str, str] = {}

# (family, size, what stands in the head's place) -> parameters
HEADED = {
    ("bert", "base", POOLED): 109_482_240,
    ("bert", "large", POOLED): 335_141_888,
    ("bert", "base-cased", POOLED): 108_310_272,
    ("bert", "large-cased", POOLED): 333_579_264,
    ("bert", "base-chinese", POOLED): 102_267_648,
    ("bert", "tiny", POOLED): 4_385_920,
    ("bert", "mini", POOLED): 11_170_560,
    ("bert", "small", POOLED): 28_763_648,
    ("bert", "medium", POOLED): 41_373_184,
    ("bert_wwm", "base", POOLED): 102_267_648,
    ("spanbert", "base", POOLED): 108_310_272,
    ("spanbert", "large", POOLED): 333_579_264,
    ("macbert", "base", POOLED): 102_267_648,
    ("macbert", "large", POOLED): 325_522_432,
    ("tinybert", "4", POOLED): 14_350_248,
    ("tinybert", "6", POOLED): 66_955_008,
    ("ernie", "1.0-base", POOLED): 99_866_112,
    ("megatron_bert", "1.3b", POOLED): 1_276_504_064,
    ("megatron_bert", "3.9b", POOLED): 3_862_663_680,
    ("roberta", "base", POOLED): 124_645_632,
    ("roberta", "large", POOLED): 355_359_744,
    ("distilbert", "base", NoHead()): 66_362_880,
    ("albert", "base", POOLED): 11_683_584,
    ("albert", "large", POOLED): 17_683_968,
    ("albert", "xlarge", POOLED): 58_724_864,
    ("albert", "xxlarge", POOLED): 222_595_584,
    ("electra", "small", NoHead()): 13_483_008,
    ("electra", "base", NoHead()): 108_891_648,
    ("electra", "large", NoHead()): 334_092_288,
    ("deberta", "base", NoHead()): 138_601_728,
    ("deberta", "large", NoHead()): 405_163_008,
    ("deberta", "xlarge", NoHead()): 757_804_032,
    ("deberta_v2", "xlarge", NoHead()): 884_593_152,
    ("deberta_v2", "xxlarge", NoHead()): 1_564_549_632,
    ("deberta_v2", "v3-small", NoHead()): 141_304_320,
    ("deberta_v2", "v3-base", NoHead()): 183_831_552,
    ("deberta_v2", "v3-large", NoHead()): 434_012_160,
    ("longformer", "base-4096", POOLED): 148_659_456,
    ("longformer", "large-4096", POOLED): 434_600_960,
    ("lawformer", "base", POOLED): 126_282_240,
    ("bigbird", "roberta-base", POOLED): 127_468_800,
    ("bigbird", "roberta-large", POOLED): 359_123_968,
}
# (family, size, heads to pretrain) -> parameters
PRETRAINED = {
    ("bert", "base", ("mlm", "nsp")): 110_106_428,
    ("bert", "large", ("mlm", "nsp")): 336_226_108,
}
