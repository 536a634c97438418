"""Which weights a run starts from: a folder, the model in the package, or random ones.

Random weights come with a tokenizer trained on the base corpus; both are written as an ordinary
Hugging Face folder inside the run, so that everything after this point only knows folders.
"""

import itertools
from pathlib import Path

from r1ci_engine.config import ModelShape, RunConfig
from r1ci_engine.errors import ConfigError, ModelError
from r1ci_engine.model.config import ModelConfig
from r1ci_engine.model.decoder import init_model
from r1ci_engine.model.folder import save_model
from r1ci_engine.model.vocabulary import END_ID, train_tokenizer
from r1ci_engine.seeds import derive_seed
from r1ci_engine.tasks.corpus import corpus_document

DEMO_MODEL = Path(__file__).parent / "demo_model"
TOKENIZER_DOCUMENTS = 20_000
"""Documents of the base corpus a new tokenizer is trained on."""


def starting_model(config: RunConfig, run_folder: Path) -> Path:
    """The Hugging Face folder to load. Raises ModelError if it does not exist."""
    match config.model.path:
        case "demo":
            return DEMO_MODEL
        case "random":
            folder = run_folder / "start"
            if not (folder / "config.json").exists():
                _random_model(config.model.shape, config.seed, folder)
            return folder
        case path:
            if not Path(path).is_dir():
                raise ModelError(
                    f"`model.path` = `{path}` is not a folder",
                    hint="give a Hugging Face folder with config.json, weights and tokenizer.json",
                )
            return Path(path)


def _random_model(shape: ModelShape, seed: int, folder: Path) -> None:
    if shape.hidden_size % shape.heads or shape.heads % shape.kv_heads:
        raise ConfigError(
            f"`model.shape.heads` = `{shape.heads}` must divide hidden_size "
            f"`{shape.hidden_size}` and be a multiple of kv_heads `{shape.kv_heads}`"
        )
    documents = (corpus_document(seed, index) for index in range(TOKENIZER_DOCUMENTS))
    texts = itertools.chain.from_iterable(
        [m["content"] for m in d.messages] + [text for _, text in d.parts] for d in documents
    )
    vocab_size = train_tokenizer(texts, shape.vocab_size, folder)
    config = ModelConfig.from_hf(
        {
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": shape.hidden_size,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "intermediate_size": shape.ffn_size,
            "vocab_size": vocab_size,
            "max_position_embeddings": shape.context,
            "rope_theta": 10_000.0,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "eos_token_id": END_ID,
        }
    )
    # The configuration is written last: its presence means that the folder is whole.
    save_model(init_model(config, derive_seed(seed, "init") % 2**63), folder)
