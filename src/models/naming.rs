//! Names of a model's parameters in files.

/// The names of a model's parameters in files, as data: the loader and the comparisons with other programs read it. Parameters themselves have
/// the names that Hugging Face gives them; a `*` in one stands for the first axis ([`file_tensors`](super::file_tensors)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// The prefix of all names but the head's. Files may lack it.
    pub base: &'static str,
    /// Ends of names of tensors that are no parameters, and are left aside.
    pub ignored: &'static [&'static str],
    /// Ends of parameters' names, and what older files have in their place.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Copies of parameters that files may have: the copy's name, and the parameter's. One that differs from its parameter is refused. Where
    /// the model has the copy as a parameter, it is none.
    pub tied: &'static [(&'static str, &'static str)],
    /// Whether the weights of linear layers are (in, out), and not (out, in).
    pub in_out: bool,
}

impl Naming {
    /// Whether a tensor that is no parameter of the model, with or without the base, can be left aside.
    #[must_use]
    pub fn ignores(&self, tensor: &str) -> bool {
        let copies = || self.tied.iter().map(|(copy, _)| *copy);
        self.ignored.iter().any(|end| tensor.ends_with(end))
            || copies().any(|copy| copy == tensor || copy.strip_prefix(self.base) == Some(tensor))
    }

    /// A name without the base.
    #[must_use]
    pub fn bare<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.base).unwrap_or(name)
    }

    /// The names of a parameter in older files.
    pub fn older<'a>(&self, parameter: &'a str) -> impl Iterator<Item = String> + use<'a> {
        let old = |(new, old): &(&str, &str)| Some(format!("{}{old}", parameter.strip_suffix(new)?));
        self.aliases.iter().filter_map(old)
    }
}
