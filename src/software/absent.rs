//! Replaces the rest of this room where the feature `software-drivers` is off: launches are not adapted and tensors are not read through
//! textures.

use super::Quirks;
use crate::error::Result;
use crate::gpu::{Caps, Gpu};
use crate::kernel::{Dispatch, View};
use crate::program::Recording;
use std::time::Duration;

pub(crate) fn adapt(_: &Caps, dispatch: Dispatch) -> Dispatch {
    dispatch
}

pub(crate) fn adapt_text(_: &Dispatch, text: String) -> String {
    text
}

pub(crate) fn page_strided(_row: u64, _uses: usize) -> bool {
    false
}

pub(crate) fn poll_lock_timeout(_: &Quirks) -> Duration {
    Duration::ZERO
}

pub(crate) fn texture_binding(_: &Quirks) -> wgpu::BindingType {
    wgpu::BindingType::Texture {
        sample_type: wgpu::TextureSampleType::Uint,
        view_dimension: wgpu::TextureViewDimension::D2,
        multisampled: false,
    }
}

pub(crate) fn texture_bytes(_: &Recording) -> u64 {
    0
}

/// Never exists here.
pub(crate) enum Spin {}

impl Spin {
    pub(crate) fn new(_: &Quirks) -> Option<Self> {
        None
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        match *self {}
    }

    pub(crate) fn polled(&self, _busy: bool) {
        match *self {}
    }
}

/// Never exists here.
#[derive(Debug)]
pub(crate) enum SharedMemory {}

impl SharedMemory {
    pub(crate) fn new(_: &wgpu::Device, _: &Caps) -> Option<Self> {
        None
    }

    pub(crate) fn buffer(&self, _: &wgpu::Device, _: &str, _: u64) -> Result<wgpu::Buffer, String> {
        match *self {}
    }
}

/// No textures.
#[derive(Debug)]
pub(crate) struct Operands;

/// Never exists here.
#[derive(Debug)]
pub(crate) enum Copy {}

impl Copy {
    pub(crate) fn encode(&self, _: &mut wgpu::CommandEncoder) {
        match *self {}
    }
}

impl Operands {
    pub(crate) fn new<'a>(
        _: &Gpu,
        _: &Recording,
        _: impl Fn(&Dispatch, &View) -> Result<(&'a wgpu::Buffer, u64)>,
    ) -> Result<Self> {
        Ok(Self)
    }

    pub(crate) fn views<'a>(
        &self,
        _index: usize,
        dispatch: &Dispatch,
        _: impl Fn(&Dispatch, &View) -> Result<(&'a wgpu::Buffer, u64)>,
    ) -> Result<Vec<Option<wgpu::TextureView>>> {
        Ok(vec![None; dispatch.bindings.len()])
    }

    pub(crate) fn copies<'a>(
        &self,
        _index: usize,
        _: &Dispatch,
        _: impl Fn(&Dispatch, &View) -> Result<(&'a wgpu::Buffer, u64)>,
    ) -> Result<Vec<Copy>> {
        Ok(Vec::new())
    }
}
