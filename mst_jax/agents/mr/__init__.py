"""MR.Q and MR.SAC: model-based representations, model-free learning."""
