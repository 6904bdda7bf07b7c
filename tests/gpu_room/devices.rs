//! Choosing an adapter, and the capabilities of an opened device.

use super::{DATA, on_every_adapter};
use wgformer::Gpu;
use wgformer::gpu::{AdapterClass, AdapterSummary, Caps, GpuOptions, Timestamps};
use wgformer::software::{Driver, Options, Quirks};

#[test]
fn adapters_are_chosen_by_number_backend_and_name() {
    let adapters = Gpu::summaries();
    assert!(!adapters.is_empty());
    for adapter in &adapters {
        eprintln!("{adapter}");
        let text = serde_json::to_string(adapter).unwrap();
        assert_eq!(&serde_json::from_str::<AdapterSummary>(&text).unwrap(), adapter);
        let gpu = Gpu::choose(Some(&adapter.index.to_string())).unwrap();
        assert_eq!((&gpu.info().name, gpu.info().backend.to_str()), (&adapter.name, adapter.backend.as_str()));
        // Where textures lie shows when a device is open.
        let Quirks { shared_textures, texture_work, .. } = gpu.caps().quirks;
        let quirks = adapter.caps.quirks.clone().with_shared_textures(shared_textures).with_texture_work(texture_work);
        let caps = adapter.caps.clone().with_quirks(quirks);
        assert_eq!(gpu.caps(), &caps, "an opened device has all that its adapter has");
        let gpu = Gpu::choose(Some(&format!("{}:{}", adapter.backend, adapter.name))).unwrap();
        assert_eq!((&gpu.info().name, gpu.info().backend.to_str()), (&adapter.name, adapter.backend.as_str()));
    }
    let message = Gpu::choose(Some("a card that nobody sells")).unwrap_err().to_string();
    assert!(message.contains(&adapters[0].to_string()), "{message}");
}

#[test]
fn a_weaker_device_than_the_adapter_can_be_asked_for() {
    on_every_adapter(|adapter| {
        let gpu = Gpu::open_with(adapter, &GpuOptions::portable().with_checked(true)).unwrap();
        let caps = gpu.caps();
        let quirks = caps.quirks.clone().with_max_textures(caps.quirks.max_textures.min(16));
        let quirks = quirks.with_max_texture_bytes(caps.quirks.max_texture_bytes.min(128 << 20));
        let least = Caps::baseline().with_name(caps.name.clone()).with_class(caps.class);
        let least = least.with_vendor(caps.vendor).with_quirks(quirks);
        assert_eq!(caps, &least);
        assert!(gpu.checked());
        assert!(gpu.buffer("larger than portable", (256 << 20) + 4, DATA).is_err());
        assert!(Timestamps::new(&gpu, 2).unwrap().is_none());
        let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..Default::default() };
        let options = GpuOptions::default().with_limits(few.clone());
        let message = Gpu::open_with(adapter, &options).unwrap_err().to_string();
        assert!(message.contains("max_storage_buffers_per_shader_stage of at least 8 (it is 4)"), "{message}");
        let descriptor = wgpu::DeviceDescriptor { required_limits: few, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let message = Gpu::adopt(device, queue).unwrap_err().to_string();
        assert!(message.contains("required_limits: adapter.limits()"), "{message}");
    });
}

#[test]
fn subgroups_that_are_not_as_a_device_says_are_not_used() {
    on_every_adapter(|adapter| {
        let own = Gpu::open(adapter).unwrap().caps().subgroup;
        for claimed in [2, 4, 8, 16, 32, 64] {
            let software = Options::default().with_claimed_subgroups([claimed; 2]);
            let gpu = Gpu::open_with(adapter, &GpuOptions::default().with_software(software)).unwrap();
            assert_eq!(gpu.caps().subgroup, own.filter(|own| *own == claimed), "{claimed} of {own:?}");
            assert_eq!((gpu.submissions(), gpu.buffers_created()), (0, 0), "a probe leaves no trace");
        }
        // Of a range only sums over workgroups are made, which hold if no subgroup is smaller.
        for least in [2, 4, 8, 16] {
            let software = Options::default().with_claimed_subgroups([least, 64]);
            let gpu = Gpu::open_with(adapter, &GpuOptions::default().with_software(software)).unwrap();
            let right = own.is_some_and(|own| own >= least);
            assert_eq!(gpu.caps().subgroup, None);
            assert_eq!(gpu.caps().subgroup_sizes, right.then_some([least, 64]), "{least} of {own:?}");
        }
    });
}

#[test]
fn a_driver_that_computes_on_the_cpu_runs_as_a_gpu() {
    on_every_adapter(|adapter| {
        let info = adapter.get_info();
        let gpu = Gpu::open_with(adapter, &GpuOptions::default().with_class(AdapterClass::Gpu));
        let gpu = gpu.unwrap();
        assert_eq!(gpu.caps().class, AdapterClass::Gpu);
        assert_eq!(gpu.caps().quirks, Driver::of(&info).map(|_| Quirks::of_results()).unwrap_or_default());
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() & Gpu::wanted_features(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let (told, seen) = std::sync::mpsc::channel();
        device.on_uncaptured_error(std::sync::Arc::new(move |error| told.send(error.to_string()).unwrap()));
        let start = std::time::Instant::now();
        let gpu = Gpu::adopt_with(device, queue, &GpuOptions::default().with_class(AdapterClass::Gpu));
        println!("{}: adopted in {:?}", info.name, start.elapsed());
        assert_eq!(gpu.unwrap().caps().class, AdapterClass::Gpu);
        assert!(seen.try_recv().is_err(), "the application was told of an error");
    });
}
