"""Names of model types that transformers has and the zoo does not, as near as they are to names that it has: whoever
gives one means it."""

ELSEWHERE = frozenset(
    """
    aria autoformer bark beit bigbird_pegasus colqwen2 decision_transformer deepseek_ocr2 deepseek_v32 deepseek_v4
    deepseek_vl diffllama dpt ernie4_5_vl_moe ernie4_5_vl_moe_text ernie4_5_vl_moe_vision
    eurobert falcon_h1 falcon_mamba flaubert gemma3n gemma3n_audio gemma3n_text gemma3n_vision gemma4
    gemma4_assistant gemma4_audio gemma4_text gemma4_unified gemma4_unified_assistant gemma4_unified_audio
    gemma4_unified_text gemma4_unified_vision gemma4_vision glm46v glm4_moe_lite glm4v glm4v_moe
    glm4v_moe_vision glm4v_text glm4v_vision glm_image_text glm_ocr glmasr glmga gpt-sw3 gpt_neox_japanese
    hubert hyperclovax hyperclovax_vision_v2 ibert informer iquestcoder llama4 llama4_text llama4_vision_model llava
    mask2former maskformer ministral ministral3 mistral3 mistral4 mistral_large4 mistral_large4_text mllama
    molmo2 nemotron3_5_asr nemotron3_5_transcribe_asr_audio nemotron3_5_transcribe_audio
    nemotron3_diarization nemotron3_diarization_audio nemotron_asr_streaming nemotron_asr_streaming_encoder
    nemotron_h nemotron_h_omni nomic_bert olmo_hybrid oneformer paligemma pegasus_x
    pixtral poolformer qwen2_5_omni qwen2_5_omni_bigvgan qwen2_5_omni_dit qwen2_5_omni_talker qwen2_5_omni_text
    qwen2_5_omni_thinker qwen2_5_omni_token2wav qwen2_5_vl qwen2_5_vl_text qwen2_5_vl_vision qwen2_audio
    qwen2_audio_encoder qwen2_vl qwen2_vl_text qwen2_vl_vision qwen3_5 qwen3_5_moe qwen3_5_moe_text
    qwen3_5_moe_vision qwen3_5_text qwen3_5_vision qwen3_asr qwen3_next qwen3_omni_moe qwen3_omni_moe_text
    qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe qwen3_vl_moe_text qwen3_vl_moe_vision qwen3_vl_text qwen3_vl_vision
    qwen4_exp qwen4_exp_text qwen4_exp_vision reformer rembert roc_bert segformer slanet swiftformer
    t5gemma2 t5gemma2_text table-transformer timesformer visual_bert xcodec xlm
    """.split()  # noqa: SIM905
)
