//! Texts as vectors.

use super::loaded::{Loaded, Side};
use wgformer::tasks::TextEmbedder;
use wgformer::{Error, Result};

impl Loaded {
    /// The vectors of texts.
    pub(crate) async fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let Side::Encoder(model) = &self.side else {
            return Err(Error::input("model", "it continues texts and makes no vectors of them: use generate"));
        };
        let embedder = match self.embedder.take() {
            Some(embedder) => embedder,
            None => {
                let settings = self.embed_settings().clone();
                TextEmbedder::new(&self.gpu, model.clone(), &self.weights, self.expect_tokenizer()?, settings)?
            }
        };
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.embedder.insert(embedder).embed_async(&texts, &mut |_| ()).await
    }
}
