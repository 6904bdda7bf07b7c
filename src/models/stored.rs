//! A decoder whose matrices are stored as a file has them, which may be of several types.

use super::names::Names;
use super::{Decoder, Dimensions, Head, Hidden, Initial, Inputs, file_tensors};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::io::Tensors;
use crate::ops::CrossEntropyOptions;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// A decoder and the types of its matrices by name.
#[derive(Debug)]
pub(super) struct AsStored {
    inner: Box<dyn Decoder>,
    types: Arc<HashMap<String, DType>>,
}

impl AsStored {
    /// The decoder with its matrices in the types that `tensors` have. Types that the GPU does not know become f32.
    pub(super) fn new(inner: Box<dyn Decoder>, tensors: &Tensors) -> Result<Self> {
        let mut types = HashMap::new();
        let parameters = inner.parameters()?;
        let names = Names::new(inner.as_ref(), tensors, &parameters);
        for (name, ty) in parameters.iter().filter(|(_, ty)| ty.shape.rank() >= 2) {
            // Parts of a stack are of one type.
            let part = file_tensors(name, ty).swap_remove(0).0;
            let stored = names
                .get(&part)
                .and_then(|t| t.dtype.same())
                .filter(|d| d.is_weight() && d.holds_rows_of(ty.shape.last()));
            types.insert(name.clone(), stored.unwrap_or(DType::F32));
        }
        Ok(Self { inner, types: Arc::new(types) })
    }
}

impl Decoder for AsStored {
    fn config(&self) -> Value {
        self.inner.config()
    }

    fn dimensions(&self) -> Dimensions {
        self.inner.dimensions()
    }

    /// The type of all matrices, or f32 if there are several.
    fn storage(&self) -> DType {
        let mut types = self.types.values();
        let first = types.next().copied().unwrap_or(DType::F32);
        if types.all(|&ty| ty == first) { first } else { DType::F32 }
    }

    fn set_storage(&mut self, storage: DType) {
        self.types = Arc::default();
        self.inner.set_storage(storage);
    }

    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        g.store_as(&self.types);
        self.inner.hidden(g, inputs)
    }

    fn head(&self, g: &mut Graph) -> Result<Head> {
        g.store_as(&self.types);
        self.inner.head(g)
    }

    fn logits(&self, g: &mut Graph, hidden: Tensor) -> Result<Tensor> {
        g.store_as(&self.types);
        self.inner.logits(g, hidden)
    }

    fn loss_of(&self, g: &mut Graph, hidden: Tensor, labels: Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        g.store_as(&self.types);
        self.inner.loss_of(g, hidden, labels, options)
    }

    fn drops(&self) -> bool {
        self.inner.drops()
    }

    fn initial(&self, parameter: &str) -> Initial {
        self.inner.initial(parameter)
    }

    fn ways(&self, router: &str) -> usize {
        self.inner.ways(router)
    }

    fn base_prefix(&self) -> &'static str {
        self.inner.base_prefix()
    }

    fn ignores(&self, tensor: &str) -> bool {
        self.inner.ignores(tensor)
    }

    fn forward_flops(&self, context: usize) -> u64 {
        self.inner.forward_flops(context)
    }
}
