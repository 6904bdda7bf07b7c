//! How byte-level tokenizers cut a text into words before they merge, by the name that GGUF files give the rules: the patterns of the models'
//! own `tokenizer.json`.

use super::sequence;
use serde_json::{Value, json};

/// Words as GPT-2 cuts them: an English ending, or letters, digits or signs with the blank in front, or blanks.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// As Llama 3 cuts them: up to three digits, a sign joined to the letters behind it, lines' ends apart.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As Qwen 2 cuts them: as Llama 3, but each digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As Qwen 2, with marks joined to letters.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Capital letters in front of small ones.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
/// Words of Chinese characters apart from others.
const KIMI: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Everything up to a blank or a sign that ends a sentence.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const CHINESE: &str = "[一-龥ࠀ-一가-\u{D7FF}]+";
const CHINESE_JAPANESE: &str = "[一-龥぀-ゟ゠-ヿ]+";
/// Letters that have a case, but for Georgian ones; by their numbers, as some have other forms of the same look.
const CASED: &str = r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+";

/// Rules of cutting, and what goes with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// The names in GGUF files.
    names: &'static [&'static str],
    /// Patterns in the order in which they cut; matches become words.
    patterns: &'static [&'static str],
    /// Whether a word that is a token is not merged.
    pub(crate) ignore_merges: bool,
    /// Whether texts begin with a token of their own where a file does not say.
    pub(crate) begins: bool,
    /// Whether they end with a separator where a file does not say.
    pub(crate) ends: bool,
}

const PLAIN: Rule = Rule { names: &[], patterns: &[], ignore_merges: false, begins: false, ends: false };

const RULES: &[Rule] = &[
    Rule { names: &["default"], patterns: &[r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", "[0-9][0-9][0-9]"], ..PLAIN },
    Rule {
        names: &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
        ],
        patterns: &[WORDS],
        ..PLAIN
    },
    Rule { names: &["roberta-bpe", "jina-v1-en", "jina-v2-code"], patterns: &[WORDS], ends: true, ..PLAIN },
    Rule {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        begins: true,
        ..PLAIN
    },
    Rule { names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], patterns: &[LLAMA3], ..PLAIN },
    Rule {
        names: &[
            "qwen2",
            "stablelm2",
            "deepseek-r1-qwen",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
            "kormo",
            "f2llmv2",
        ],
        patterns: &[QWEN2],
        ..PLAIN
    },
    Rule { names: &["qwen35"], patterns: &[QWEN35], ..PLAIN },
    Rule {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[r"\p{N}", WORDS],
        ..PLAIN
    },
    Rule { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], patterns: &[GPT4O], ..PLAIN },
    Rule { names: &["tiny_aya", "cohere2moe"], patterns: &[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O], ..PLAIN },
    Rule { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, begins: true, ..PLAIN },
    Rule {
        names: &["deepseek-llm"],
        patterns: &["[\r\n]", CASED, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CHINESE, r"\p{N}+"],
        ..PLAIN
    },
    Rule { names: &["deepseek-coder"], patterns: &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CHINESE, r"\p{N}"], ..PLAIN },
    Rule {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[r"\p{N}{1,3}", CHINESE_JAPANESE, DEEPSEEK3],
        ..PLAIN
    },
    Rule { names: &["falcon"], patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", WORDS, "[0-9][0-9][0-9]"], ..PLAIN },
    Rule { names: &["poro-chat", "bloom", "gpt3-finnish"], patterns: &[BLOOM], ..PLAIN },
    Rule { names: &["viking"], patterns: &[BLOOM, r"\p{N}"], ..PLAIN },
    Rule { names: &["bailingmoe", "bailingmoe2", "llada-moe"], patterns: &[BAILING], ..PLAIN },
    Rule { names: &["seed-coder"], patterns: &[SEED_CODER], ..PLAIN },
    Rule { names: &["exaone-moe"], patterns: &[EXAONE_MOE], ..PLAIN },
    Rule { names: &["jais-2"], patterns: &[JAIS2], ..PLAIN },
    Rule { names: &["superbpe"], patterns: &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"], ..PLAIN },
    Rule { names: &["kimi-k2"], patterns: &[KIMI], ..PLAIN },
];

impl Rule {
    /// The rules of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        RULES.iter().find(|rule| rule.names.contains(&name)).copied()
    }

    /// All names.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        RULES.iter().flat_map(|rule| rule.names).copied()
    }

    /// The name of the rules of a `tokenizer.json`, if they have one.
    #[cfg(feature = "files")]
    pub(in crate::io) fn of_pre_tokenizer(pre: &Value, ignore_merges: bool) -> Option<&'static str> {
        let steps = match pre["pretokenizers"].as_array() {
            Some(steps) => steps.iter().collect(),
            None => vec![pre],
        };
        let mut patterns = Vec::new();
        for step in steps {
            match step["type"].as_str()? {
                "Split" if step["invert"] != true => patterns.push(step["pattern"]["Regex"].as_str()?),
                "Digits" if step["individual_digits"] == true => patterns.push(r"\p{N}"),
                "ByteLevel" if step["add_prefix_space"] == true => return None,
                // Without the key they are cut.
                "ByteLevel" if step["use_regex"] != false => patterns.push(WORDS),
                "ByteLevel" => {}
                _ => return None,
            }
        }
        let same = |rule: &&Rule| rule.patterns == patterns && rule.ignore_merges == ignore_merges;
        RULES.iter().find(same).and_then(|rule| rule.names.first()).copied()
    }

    /// As a part of a `tokenizer.json`.
    pub(super) fn pre_tokenizer(self) -> Value {
        let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let level = |words: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": words});
        match self.patterns {
            // The library's own are faster.
            [WORDS] => sequence("pretokenizers", vec![level(true)]),
            [digits, WORDS] if *digits == r"\p{N}" => {
                sequence("pretokenizers", vec![json!({"type": "Digits", "individual_digits": true}), level(true)])
            }
            patterns => sequence("pretokenizers", patterns.iter().map(split).chain([level(false)]).collect()),
        }
    }
}
