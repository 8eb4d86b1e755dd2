"""GLM and GLM-4: gate and up in one projection; GLM-4 has norms after the blocks, too."""

from dataclasses import replace

from pipeline.models.families import llama, phi3

GLM = replace(llama.WITHOUT_FLAGS, model_types=("glm",), mlp=phi3.GATED_AT_ONCE)
FAMILIES = (
    GLM,
    replace(
        GLM,
        model_types=("glm4",),
        attn=replace(GLM.attn, norm_after="post_self_attn_layernorm"),
        mlp=replace(GLM.mlp, norm_after="post_mlp_layernorm"),
    ),
)
